package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/unmasq/unmasq/internal/kubectl"
)

func TestKubectlFlows(t *testing.T) {
	p := &plugin{t: t, run: onExample(t)}
	status, out, log := p.unmasq("flows", "client", "--port=443")
	if status != 0 || log != "" {
		t.Errorf("status %d, %s", status, log)
	}
	const want = `PROTO  SOURCE                             SEEN AS                    DESTINATION          BACKEND  STATE        BY
tcp    10.244.1.7:41234 (default/client)  192.0.2.11:62113 (node-a)  192.168.200.253:443  -        ESTABLISHED  masqueraded by flannel: FLANNEL-POSTRTG:5
`
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	// Names are read there, too; a flag that is repeated is handed on as often.
	status, out, log = p.unmasq("flows", "--node", "node-a", "web", "--source=default/client", "--source=10.244.1.8", "--kind=kept,snat", "-o", "json")
	if status != 0 || log != "" || strings.Count(out, `"destinationName":"default/web"`) != 2 {
		t.Errorf("status %d, %s\n%s", status, log, out)
	}
	wantCommand := []string{"/unmasq", "flows", "--kind=kept", "--kind=snat", "--output=json", "--source=default/client", "--source=10.244.1.8", "--names=/dev/stdin", "--", "default/web"}
	if diff := cmp.Diff(wantCommand, p.commands[1]); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	status, _, log = p.unmasq("flows", "client", "--protocol=x")
	if status != statusUsage || log != "unmasq: --protocol: protocol \"x\"; expected tcp, udp, sctp, icmp, icmpv6, gre, esp, or a number up to 255\n" {
		t.Errorf("status %d, %q", status, log)
	}
}

// A user may not know everybody's names.
func TestKubectlFlowsWithoutNames(t *testing.T) {
	p := &plugin{t: t, run: onExample(t), prepare: func(api *fake.FakeDynamicClient) {
		for _, kind := range []string{"pods", "services"} {
			api.PrependReactor("list", kind, func(a clienttesting.Action) (bool, runtime.Object, error) {
				return a.GetNamespace() == "", nil, apierrors.NewForbidden(a.GetResource().GroupResource(), "", context.Canceled)
			})
		}
	}}
	status, out, log := p.unmasq("flows", "client")
	if status != 0 || !strings.Contains(log, "note: pods aren't named: ") || !strings.Contains(log, "note: services aren't named: ") || !strings.Contains(out, "10.244.1.7:41234 (default/client)") {
		t.Errorf("status %d, %s\n%s", status, log, out)
	}
}

// A watch in a pod ends with its input, which goes on behind the names.
func TestKubectlFlowsWatch(t *testing.T) {
	p := &plugin{t: t, run: func(command []string, s kubectl.Streams) error {
		names, rest, err := untilBlank(s.Stdin)
		if err != nil || !strings.Contains(names, "10.244.1.7 default/client\n") || strings.HasSuffix(names, "\n\n") {
			return fmt.Errorf("names %q, %w", names, err)
		}
		if !slices.Contains(command, "--attached") || !slices.Contains(command, "--watch=true") {
			return fmt.Errorf("it ran %q", command)
		}
		ended := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, rest); close(ended) }()
		select {
		case <-ended:
			return fmt.Errorf("the input has ended")
		default:
			return nil
		}
	}}
	if status, _, log := p.unmasq("flows", "--node=node-a", "--watch"); status != 0 {
		t.Errorf("status %d, %s", status, log)
	}
}

func TestKubectlFlowsRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"flows":                       "which node? Name it with --node, or a pod of it",
		"flows 10.0.0.1":              "which node? 10.0.0.1 is an address: name the node with --node",
		"flows nobody":                "there is no pod default/nobody",
		"flows client --snapshot x":   "unknown flag: --snapshot",
		"flows client --kept=perhaps": "expected true or false",
	} {
		p := &plugin{t: t, run: func(command []string, _ kubectl.Streams) error { return fmt.Errorf("it ran %q", command) }}
		status, out, log := p.unmasq(strings.Fields(args)...)
		if status != statusUsage || out != "" || !strings.Contains(log, want) || strings.Count(log, "\n") != 1 {
			t.Errorf("%s: status %d\n%s%s\nwant %s", args, status, out, log, want)
		}
	}
}
