package kubectl

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResolve(t *testing.T) {
	for _, x := range []struct {
		from, to string
		node     string // --node
		family   string
		want     string // node: source → destination
		notes    string
	}{
		{"default/client", "default/web:80", "", "", "n1: 10.244.1.7 → 10.96.0.5:80/tcp",
			"asked about IPv4, the only family that both have: pod default/client has 10.244.1.7 and fd00::7; service default/web has 10.96.0.5"},
		{"four", "web:80", "", "", "n1: 10.244.1.8 → 10.96.0.5:80/tcp", ""},
		{"four", "web:http/tcp", "", "", "n1: 10.244.1.8 → 10.96.0.5:80/tcp", ""},
		{"four", "web", "", "", "n1: 10.244.1.8 → 10.96.0.5:80/tcp", "service default/web has one port that fits: 80/tcp (http)"},
		{"four", "web.default.svc:80", "", "", "n1: 10.244.1.8 → 10.96.0.5:80/tcp", ""},
		{"four", "web.default.svc.cluster.local:http", "", "", "n1: 10.244.1.8 → 10.96.0.5:80/tcp", ""},
		{"four", "client.default.svc:80", "", "", "n1: 10.244.1.8 → 10.96.0.7:80/tcp", "service default/client has no IPv4 endpoint that is ready"},
		{"four", "default/web-0:8080", "", "", "n1: 10.244.1.8 → 10.244.2.3:8080", ""},
		{"four", "default/web-0:8080/udp", "", "", "n1: 10.244.1.8 → 10.244.2.3:8080/udp", ""},
		{"four", "default/web-0/icmp", "", "", "n1: 10.244.1.8 → 10.244.2.3/icmp", ""},
		{"four", "default/web-0", "", "", "n1: 10.244.1.8 → 10.244.2.3", ""},
		{"four", "192.0.2.7:443", "", "", "n1: 10.244.1.8 → 192.0.2.7:443", ""},
		{"four", "10.0.0.0/8:443", "", "", "n1: 10.244.1.8 → 10.0.0.0/8:443", ""},
		{"client", "[2001:db8::7]:443", "", "", "n1: fd00::7 → [2001:db8::7]:443", ""},
		{"client", "2001:db8::7", "", "", "n1: fd00::7 → 2001:db8::7", ""},
		{"client", "2001:db8::/32", "", "", "n1: fd00::7 → 2001:db8::/32", ""},
		// Both families: the service's first one, unless asked.
		{"client", "shop/both:metrics", "", "", "n1: fd00::7 → [fd00:96::5]:9153/tcp",
			"service shop/both has no IPv6 endpoint that is ready|service shop/both has no IPv4 endpoint that is ready|asked about IPv6; --family ipv4 asks about the other"},
		{"client", "shop/both:metrics", "", "ipv4", "n1: 10.244.1.7 → 10.96.0.6:9153/tcp",
			"service shop/both has no IPv6 endpoint that is ready|service shop/both has no IPv4 endpoint that is ready"},
		// One number, two protocols.
		{"client", "shop/both:53/udp", "", "ipv4", "n1: 10.244.1.7 → 10.96.0.6:53/udp",
			"service shop/both has no IPv6 endpoint that is ready|service shop/both has no IPv4 endpoint that is ready"},
		{"client", "shop/both:53", "", "ipv4", "n1: 10.244.1.7 → 10.96.0.6:53/tcp",
			"port 53 of service shop/both is asked about by tcp; it has 53/udp (dns), 53/tcp (dns-tcp), 9153/tcp (metrics)|" +
				"service shop/both has no IPv6 endpoint that is ready|service shop/both has no IPv4 endpoint that is ready"},
		{"client", "shop/both/udp", "", "ipv4", "n1: 10.244.1.7 → 10.96.0.6:53/udp",
			"service shop/both has one port that fits: 53/udp (dns)|service shop/both has no IPv6 endpoint that is ready|service shop/both has no IPv4 endpoint that is ready"},
		{"four", "shop/single:80", "", "", "n1: 10.244.1.8 → 10.244.2.7:8080/tcp", "service shop/single is headless: clients connect to its one endpoint, shop/single-endpoint (10.244.2.7:8080)"},
		{"kube-system/host", "192.0.2.7", "", "", "n1: 192.0.2.1 → 192.0.2.7", "pod kube-system/host is in its node's network: it has the node's addresses"},
		{"client", "", "", "", "n1: 10.244.1.7 → ", "asked about IPv4; --family ipv6 asks about the other"},
		// With a node.
		{"203.0.113.9", "web:80", "n2", "", "n2: 203.0.113.9 → 10.96.0.5:80/tcp", ""},
		{"eth0", "192.0.2.7", "n2", "", "n2: eth0 → 192.0.2.7", ""},
		{"eth0", "shop/both:metrics", "n2", "ipv4", "n2: eth0 → 10.96.0.6:9153/tcp",
			"service shop/both has no IPv6 endpoint that is ready|service shop/both has no IPv4 endpoint that is ready"},
		{"default/four", "web:80", "n2", "", "n2: 10.244.1.8 → 10.96.0.5:80/tcp", "pod default/four runs on node n1; asked is node n2"},
	} {
		t.Run(x.from+" "+x.to, func(t *testing.T) {
			c, _ := cluster(t, objects)
			asked, err := c.Resolve(t.Context(), Question{Source: x.from, Destination: x.to, Node: x.node, Family: x.family})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(x.want, asked.Node+": "+asked.Source+" → "+asked.Destination); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if diff := cmp.Diff(x.notes, strings.Join(asked.Notes, "|")); diff != "" {
				t.Errorf("notes: -want +got\n%s", diff)
			}
		})
	}
}

func TestResolveRefuses(t *testing.T) {
	for _, x := range []struct {
		from, to, node, family, want string
		// state: it's the cluster's, not the user's.
		state bool
	}{
		{"10.244.1.7", "192.0.2.7", "", "", "source 10.244.1.7 is an address: name the node that is asked with --node, or a pod as source", false},
		{"default/none", "192.0.2.7", "", "", `source "default/none": there is no pod default/none`, false},
		{"a/b/c", "192.0.2.7", "", "", `source "a/b/c": expected a pod, NAMESPACE/POD or POD, or an address with --node`, false},
		{"client:80", "192.0.2.7", "", "", `source "client:80": a source has no port here; expected --source-port 80`, false},
		{"web.default.svc", "192.0.2.7", "", "", `source "web.default.svc": expected a pod`, false},
		{"default/", "192.0.2.7", "", "", `source "default/": expected a pod`, false},
		{"../x", "192.0.2.7", "", "", `source "../x": expected a pod`, false},
		{"pending", "192.0.2.7", "", "", `source "pending": the pod has no address yet (Pending)`, true},
		{"done", "192.0.2.7", "", "", `source "done": the pod has ended (Succeeded): its addresses may be another's`, true},
		{"four", "", "", "ipv6", "--family ipv6: not both have it: pod default/four has 10.244.1.8; ", false},
		{"four", "shop/none:80", "", "", `destination "shop/none:80": there is no service and no pod shop/none`, false},
		{"four", "none.shop.svc:80", "", "", `destination "none.shop.svc:80": there is no service shop/none`, false},
		{"four", "default/client:80", "", "", `default/client is a service and a pod: write client.default.svc for the service, or the pod's address 10.244.1.7 or fd00::7`, false},
		{"four", "shop/away:5432", "", "", "the service is another name for db.example.com (ExternalName), which clients ask DNS for: expected one of its addresses", false},
		{"four", "web:81", "", "", "the service has no port 81; it has 80/tcp (http) (another port is asked about with the service's address)", false},
		{"four", "web:80/udp", "", "", "the service has no port 80/udp; it has 80/tcp (http)", false},
		{"four", "web:https", "", "", "the service has no port https; it has 80/tcp (http)", false},
		{"four", "web:", "", "", "expected NAMESPACE/NAME[:PORT][/PROTOCOL]", false},
		{"four", "default/web:80/tcp/x", "", "", "expected NAMESPACE/NAME[:PORT][/PROTOCOL]", false},
		{"four", "shop/both", "", "", "the service has several such ports: 53/udp (dns), 53/tcp (dns-tcp), 9153/tcp (metrics); expected one of them, as in shop/both:53/udp", false},
		{"four", "shop/db:sql", "", "", "the service is headless (no ClusterIP): clients connect to one of its endpoints; expected one of shop/db-0 (10.244.2.8:15432), shop/db-1 (10.244.2.9:15432)", false},
		{"four", "shop/nobody:80", "", "", "clients connect to one of its endpoints, and none is ready: its name leads nowhere", true},
		{"four", "shop/six:80", "", "", "the two have no family in common: pod default/four has 10.244.1.8; service shop/six has fd00:96::6", false},
		{"four", "[2001:db8::7]:80", "", "", "the two have no family in common: pod default/four has 10.244.1.8; [2001:db8::7]:80", false},
		{"four", "web-0:99999", "", "", `port "99999"; expected a number from 1 to 65535`, false},
		{"four", "web-0:http", "", "", "the pod has no port of that name; its ports have no names: expected a number", false},
		{"192.0.2.7", "192.0.2.8", "n1", "ipv4", "--family chooses among a name's addresses; expected a name", false},
	} {
		t.Run(x.from+" "+x.to, func(t *testing.T) {
			c, _ := cluster(t, objects)
			_, err := c.Resolve(t.Context(), Question{Source: x.from, Destination: x.to, Node: x.node, Family: x.family})
			if err == nil || !strings.Contains(err.Error(), x.want) {
				t.Fatalf("%v; want %s", err, x.want)
			}
			var usage usageError
			if errors.As(err, &usage) == x.state {
				t.Errorf("a mistake of the user's: %t, want %t", !x.state, x.state)
			}
		})
	}
}

func TestPodPorts(t *testing.T) {
	c, _ := cluster(t, strings.Replace(objects, "name: client, namespace: default}\nspec: {clusterIP", "name: other, namespace: default}\nspec: {clusterIP", 1))
	for to, want := range map[string]string{"client:dns": "10.244.1.7:53/udp", "client:http": "10.244.1.7:8080/tcp", "client:http/tcp": "10.244.1.7:8080/tcp"} {
		asked, err := c.Resolve(t.Context(), Question{Source: "four", Destination: to})
		if err != nil || asked.Destination != want {
			t.Errorf("%s: %q, %v; want %s", to, asked.Destination, err, want)
		}
	}
	_, err := c.Resolve(t.Context(), Question{Source: "four", Destination: "client:dns/tcp"})
	if err == nil || !strings.Contains(err.Error(), "the pod has no port named dns/tcp; it has http (8080/tcp), dns (53/udp)") {
		t.Error(err)
	}
}

// Names of all that is known go along: endpoints that aren't ready don't, since a
// pod that starts may have the address of one that ends.
func TestResolveNames(t *testing.T) {
	c, _ := cluster(t, objects)
	asked, err := c.Resolve(t.Context(), Question{Source: "client", Destination: "web:80"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range asked.Names {
		got = append(got, n.Address.String()+" "+n.Name)
	}
	want := []string{"10.244.1.7 default/client", "fd00::7 default/client", "10.96.0.5 default/web", "10.244.2.3 default/web-0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// What one isn't allowed to see is said, and what can be asked is.
func TestResolveWithFewRights(t *testing.T) {
	c, api := cluster(t, objects)
	forbid(api, "list", EndpointSlices)
	asked, err := c.Resolve(t.Context(), Question{Source: "four", Destination: "web:80"})
	if err != nil || len(asked.Notes) != 1 || !strings.HasPrefix(asked.Notes[0], "endpoints of service default/web aren't named, and whether it has any isn't known: endpointslices.discovery.k8s.io is forbidden") {
		t.Errorf("%+v, %v", asked, err)
	}
	if _, err = c.Resolve(t.Context(), Question{Source: "four", Destination: "shop/db:sql"}); err == nil || !strings.Contains(err.Error(), "is headless (no ClusterIP): clients connect to one of its endpoints; endpoints of service shop/db aren't named") {
		t.Error(err)
	}
	forbid(api, "get", Services)
	var usage usageError
	if _, err = c.Resolve(t.Context(), Question{Source: "four", Destination: "web:80"}); err == nil || errors.As(err, &usage) || !strings.Contains(err.Error(), `destination "web:80": services "web" is forbidden`) {
		t.Error(err)
	}
	forbid(api, "get", Pods)
	if _, err = c.Resolve(t.Context(), Question{Source: "four", Destination: "192.0.2.7"}); err == nil || errors.As(err, &usage) || !strings.Contains(err.Error(), `source "four": pods "four" is forbidden`) {
		t.Error(err)
	}
}
