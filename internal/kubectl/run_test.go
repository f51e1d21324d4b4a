package kubectl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

var agent = Agent{Node: "n1", Namespace: "unmasq", Pod: "agent-x", Container: "agent"}

// What comes back of a command is its status, or one line that says what to do.
func TestRun(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, x := range []struct {
		name   string
		ctx    context.Context
		err    error
		want   string
		status int
	}{
		{"well", t.Context(), nil, "<nil>", 0},
		{"finding", t.Context(), exec.CodeExitError{Err: errors.New("exit status 1"), Code: 1}, "unmasq in the agent ended with status 1", 1},
		{"killed", t.Context(), exec.CodeExitError{Err: errors.New("exit status 137"), Code: 137}, "unmasq in the agent ended with status 137", 137},
		{"forbidden", t.Context(), apierrors.NewForbidden(Pods.GroupResource(), "agent-x", errors.New("no")), `you may not run unmasq in the agent: pods "agent-x" is forbidden: no; it takes create and get on pods/exec in namespace unmasq`, 0},
		{"gone", t.Context(), apierrors.NewNotFound(Pods.GroupResource(), "agent-x"), `pod unmasq/agent-x on node n1 is gone: pods "agent-x" not found; try again`, 0},
		{"another image", t.Context(), errors.New(`exec: "/unmasq": stat /unmasq: no such file or directory`), "pod unmasq/agent-x on node n1, container agent, has no /unmasq: expected one of unmasq's images there", 0},
		{"broken", t.Context(), io.ErrUnexpectedEOF, "run unmasq in pod unmasq/agent-x on node n1: unexpected EOF", 0},
		{"interrupted", gone, io.ErrUnexpectedEOF, "context canceled", 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := &Client{Exec: func(_ context.Context, a Agent, command []string, _ Streams) error {
				if got := fmt.Sprint(a.Pod, command); got != "agent-x[/unmasq status -o json]" {
					t.Errorf("it ran %s", got)
				}
				return x.err
			}}
			err := c.Run(x.ctx, agent, []string{"status", "-o", "json"}, Streams{})
			if got := fmt.Sprint(err); got != x.want {
				t.Errorf("%s; want %s", got, x.want)
			}
			var status Status
			if errors.As(err, &status); int(status) != x.status {
				t.Errorf("status %d, want %d", status, x.status)
			}
			if said := status == 1; status.Said() != said {
				t.Errorf("it has said so: %t", status.Said())
			}
		})
	}
}

// oldServer knows no WebSocket: it runs `echo` by SPDY, with what comes in.
func oldServer(t *testing.T, refuse *apierrors.StatusError) *rest.Config {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuse != nil {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(int(refuse.ErrStatus.Code))
			_ = json.NewEncoder(w).Encode(refuse.ErrStatus)
			return
		}
		if r.Method != http.MethodPost {
			http.Error(w, "no WebSocket here", http.StatusBadRequest)
			return
		}
		if _, err := httpstream.Handshake(r, w, []string{"v4.channel.k8s.io"}); err != nil {
			t.Error(err)
			return
		}
		serveEcho(t, w, r)
	}))
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}
}

func serveEcho(t *testing.T, w http.ResponseWriter, r *http.Request) {
	streams := make(chan httpstream.Stream, 4)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if conn == nil {
		t.Error("no connection")
		return
	}
	defer conn.Close()
	by := map[string]httpstream.Stream{}
	for len(by) < 4 {
		s := <-streams
		by[s.Headers().Get("streamType")] = s
	}
	in, err := io.ReadAll(by["stdin"])
	if err != nil {
		t.Error(err)
	}
	fmt.Fprintf(by["stdout"], "%s %s: %s", r.URL.Path, r.URL.Query()["command"], in)
	fmt.Fprint(by["stderr"], "said")
	by["stdout"].Close()
	by["stderr"].Close()
	_ = json.NewEncoder(by["error"]).Encode(meta.Status{Status: meta.StatusFailure, Reason: "NonZeroExitCode",
		Details: &meta.StatusDetails{Causes: []meta.StatusCause{{Type: "ExitCode", Message: "1"}}}})
	by["error"].Close()
	<-conn.CloseChan()
}

// A server without WebSocket is asked in the older way.
func TestExecFallsBack(t *testing.T) {
	run, err := execBy(oldServer(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	var out, said bytes.Buffer
	err = (&Client{Exec: run}).Run(t.Context(), agent, []string{"explain", "a b"}, Streams{strings.NewReader("names"), &out, &said})
	var status Status
	if !errors.As(err, &status) || status != 1 {
		t.Errorf("status 1 is %v", err)
	}
	if want := "/api/v1/namespaces/unmasq/pods/agent-x/exec [/unmasq explain a b]: names"; out.String() != want || said.String() != "said" {
		t.Errorf("%q, %q; want %q", out.String(), said.String(), want)
	}
}

// Who isn't allowed to is told so in the API server's words, whatever the protocol.
func TestExecRefused(t *testing.T) {
	run, err := execBy(oldServer(t, apierrors.NewForbidden(Pods.GroupResource(), "agent-x", errors.New("no right"))))
	if err != nil {
		t.Fatal(err)
	}
	err = (&Client{Exec: run}).Run(t.Context(), agent, []string{"status"}, Streams{Stdout: io.Discard})
	if want := `you may not run unmasq in the agent: pods "agent-x" is forbidden: no right; it takes create and get on pods/exec in namespace unmasq`; fmt.Sprint(err) != want {
		t.Errorf("%v; want %s", err, want)
	}
}

func TestConnect(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	const text = `{apiVersion: v1, kind: Config, current-context: a, clusters: [{name: c, cluster: {server: "https://192.0.2.1"}}], users: [{name: u, user: {token: t}}],
contexts: [{name: a, context: {cluster: c, user: u, namespace: shop}}, {name: b, context: {cluster: c, user: u}}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		access    Access
		namespace string
		err       string
	}{
		{Access{Kubeconfig: file}, "shop", ""},
		{Access{Kubeconfig: file, Context: "b"}, "default", ""},
		{Access{Kubeconfig: file, Namespace: "other"}, "other", ""},
		{Access{Kubeconfig: file, Context: "none"}, "", `context "none" does not exist`},
		{Access{Kubeconfig: file + "x"}, "", "no such file"},
	} {
		c, err := Connect(x.access, Where{})
		if x.err != "" {
			if err == nil || !strings.Contains(err.Error(), x.err) {
				t.Errorf("%+v: %v; want %s", x.access, err, x.err)
			}
			continue
		}
		if err != nil || c.Namespace != x.namespace || c.Where.Namespace != AgentNamespace || c.Where.Selector != AgentSelector {
			t.Errorf("%+v: %+v, %v", x.access, c, err)
		}
	}
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	if _, err := Connect(Access{}, Where{}); err == nil || !strings.Contains(err.Error(), "There is no kubeconfig: name one with --kubeconfig") {
		t.Error(err)
	}
}
