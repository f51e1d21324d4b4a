// Package kubectl is the side of `kubectl unmasq` that runs where the user is: it
// finds the agent of a node, turns names of pods and services into addresses, and
// runs unmasq inside the agent's pod (pods/exec). All of it is done with the user's
// own rights, so that the cluster's RBAC is the only authority and no port is
// opened. It doesn't answer anything itself: the node does.
//
//	client, err := kubectl.Connect(kubectl.Access{Context: "lab"}, kubectl.Where{})
//	asked, err := client.Resolve(ctx, kubectl.Question{Source: "default/web-0", Destination: "default/db:5432"})
//	agent, err := client.AgentOn(ctx, asked.Node)
//	err = client.Run(ctx, agent, []string{"explain", asked.Source, asked.Destination}, kubectl.Streams{Stdout: os.Stdout})
package kubectl

import (
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	_ "k8s.io/client-go/plugin/pkg/client/auth/oidc" // the one way to log in that kubeconfig names and client-go has apart
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Resources that are asked for.
var (
	Pods           = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	Services       = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	Nodes          = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	EndpointSlices = schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}
)

// Access says which cluster is asked as whom, in kubectl's words. The zero value is
// what kubectl without flags would use.
type Access struct {
	Kubeconfig, Context, Cluster, User, Namespace string
	Server, TLSServerName, CertificateAuthority   string
	Insecure                                      bool
	Token, ClientCertificate, ClientKey           string
	As, AsUID                                     string
	AsGroups                                      []string
	RequestTimeout                                string
}

// Where agents are.
type Where struct {
	// Namespace and Selector of their pods; empty: as deploy/base has them.
	Namespace, Selector string
}

// As deploy/base has them.
const (
	AgentNamespace = "unmasq"
	AgentSelector  = "app.kubernetes.io/name=unmasq,app.kubernetes.io/component=agent"
	agentContainer = "agent"
	// agentProgram of unmasq's images.
	agentProgram = "/unmasq"
)

// What a container of unmasq's leaves as its termination message: there was a table,
// or there was none.
const (
	SaidCleared = "cleared"
	SaidNothing = "nothing to remove"
)

// Streams of a command that runs elsewhere; nil ones aren't connected.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Client asks one cluster.
type Client struct {
	// Objects of the API server.
	Objects dynamic.Interface
	// Exec runs a command in a pod. Tests put their own there.
	Exec Exec
	// Namespace of names without one.
	Namespace string
	Where     Where
}

// Connect reads kubeconfig. It asks nobody yet.
func Connect(a Access, where Where) (*Client, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = a.Kubeconfig
	files := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, a.overrides())
	config, err := files.ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		return nil, usageError{errors.New("which cluster? There is no kubeconfig: name one with --kubeconfig or $KUBECONFIG")}
	case err != nil:
		return nil, usageError{fmt.Errorf("which cluster? %w", err)}
	}
	namespace, _, err := files.Namespace()
	if err != nil {
		return nil, usageError{fmt.Errorf("which namespace? %w", err)}
	}
	config = rest.CopyConfig(config)
	config.UserAgent = "kubectl-unmasq"
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	exec, err := execBy(config)
	if err != nil {
		return nil, err
	}
	return &Client{Objects: objects, Exec: exec, Namespace: namespace, Where: where.orDefault()}, nil
}

func (w Where) orDefault() Where {
	if w.Namespace == "" {
		w.Namespace = AgentNamespace
	}
	if w.Selector == "" {
		w.Selector = AgentSelector
	}
	return w
}

func (a Access) overrides() *clientcmd.ConfigOverrides {
	o := &clientcmd.ConfigOverrides{CurrentContext: a.Context, Timeout: a.RequestTimeout}
	o.Context = api.Context{Cluster: a.Cluster, AuthInfo: a.User, Namespace: a.Namespace}
	o.ClusterInfo = api.Cluster{Server: a.Server, TLSServerName: a.TLSServerName, CertificateAuthority: a.CertificateAuthority, InsecureSkipTLSVerify: a.Insecure}
	o.AuthInfo = api.AuthInfo{Token: a.Token, ClientCertificate: a.ClientCertificate, ClientKey: a.ClientKey,
		Impersonate: a.As, ImpersonateUID: a.AsUID, ImpersonateGroups: a.AsGroups}
	return o
}

// usageError is in what the user gave: names, flags, kubeconfig.
type usageError struct{ error }

func (e usageError) Unwrap() error   { return e.error }
func (e usageError) ExitStatus() int { return 2 }
