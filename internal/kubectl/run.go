package kubectl

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
)

// Exec runs a command in a container of an agent's pod. A status other than 0 is
// an [exec.CodeExitError].
type Exec func(ctx context.Context, a Agent, command []string, s Streams) error

// Status is what a command in an agent ended with. It has said why by itself.
type Status int

func (s Status) Error() string {
	return fmt.Sprintf("unmasq in the agent ended with status %d", int(s))
}
func (s Status) ExitStatus() int { return int(s) }

// Said is true where nothing is left to be said.
func (s Status) Said() bool { return s == 1 || s == 2 }

// Run unmasq inside an agent. An error that is a [Status] came from there; others
// say why it couldn't be run.
func (c *Client) Run(ctx context.Context, a Agent, args []string, s Streams) error {
	// What client-go logs of broken connections comes back as errors.
	ctx = klog.NewContext(ctx, klog.Logger{})
	err := c.Exec(ctx, a, append([]string{agentProgram}, args...), s)
	if err == nil {
		return nil
	}
	var status exec.CodeExitError
	where := fmt.Sprintf("pod %s/%s on node %s", a.Namespace, a.Pod, a.Node)
	switch said := err.Error(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case apierrors.IsForbidden(err):
		return fmt.Errorf("you may not run unmasq in the agent: %w; it takes create and get on pods/exec in namespace %s", err, a.Namespace)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s is gone: %w; try again", where, err)
	case strings.Contains(said, agentProgram) && (strings.Contains(said, "no such file") || strings.Contains(said, "not found")):
		return fmt.Errorf("%s, container %s, has no %s: expected one of unmasq's images there", where, a.Container, agentProgram)
	case errors.As(err, &status):
		return Status(status.Code)
	}
	return fmt.Errorf("run unmasq in %s: %w", where, err)
}

// execBy an API server: by WebSocket, or by SPDY where the server, or a proxy before
// it, knows no WebSocket; as kubectl does.
func execBy(config *rest.Config) (Exec, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, a Agent, command []string, s Streams) error {
		target := base.JoinPath("api/v1/namespaces", a.Namespace, "pods", a.Pod, "exec")
		target.RawQuery = execQuery(a.Container, command, s).Encode()
		old, err := remotecommand.NewSPDYExecutor(config, "POST", target)
		if err != nil {
			return err
		}
		web, err := remotecommand.NewWebSocketExecutor(config, "GET", target.String())
		if err != nil {
			return err
		}
		var refused apierrors.APIStatus
		either, err := remotecommand.NewFallbackExecutor(web, old, func(err error) bool {
			refused = refusal(err)
			return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
		})
		if err != nil {
			return err
		}
		err = either.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr})
		// The older protocol has no more than words for why it was refused.
		if known, ok := refused.(error); ok && err != nil && strings.HasPrefix(err.Error(), "unable to upgrade connection") {
			return known
		}
		return err
	}, nil
}

// refusal is the API server's, of a WebSocket; nil where it was something else.
func refusal(err error) (status apierrors.APIStatus) {
	var upgrade *httpstream.UpgradeFailureError
	if errors.As(err, &upgrade) && errors.As(upgrade.Cause, &status) {
		return status
	}
	return nil
}

// execQuery is a PodExecOptions as the API server takes it.
func execQuery(container string, command []string, s Streams) url.Values {
	q := url.Values{"container": {container}, "command": command}
	for name, on := range map[string]bool{"stdin": s.Stdin != nil, "stdout": s.Stdout != nil, "stderr": s.Stderr != nil} {
		if on {
			q.Set(name, "true")
		}
	}
	return q
}
