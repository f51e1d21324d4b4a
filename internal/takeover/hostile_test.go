package takeover_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/snapshot"
	"github.com/unmasq/unmasq/internal/takeover"
)

const dockerRule = `-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE`

// restored is the input that puts parts back into a node whose rules are these now.
func restored(t *testing.T, now *snapshot.Host, parts []takeover.Part) string {
	t.Helper()
	scripts, err := takeover.Restore(now, parts)
	if err != nil || len(scripts) != 1 {
		t.Fatalf("%v, %v", scripts, err)
	}
	return scripts[0].Input
}

// TestPlace: where a rule comes back that stood among equal ones, among others that are
// gone, or beside one of another owner's that was taken too.
func TestPlace(t *testing.T) {
	a, b, c := someones, strings.Replace(someones, "10.9", "10.8", 1), strings.Replace(someones, "10.9", "10.7", 1)
	for _, tc := range []struct {
		name        string
		before, now []string
		at          string
	}{
		{"behind the second of equal ones", []string{a, b, a, dockerRule, b}, []string{a, b, a, b}, "4"},
		{"one of the equal ones is gone", []string{a, b, a, dockerRule, b}, []string{a, b}, "2"},
		{"the one before it is gone", []string{a, b, dockerRule, c}, []string{a, c}, "2"},
		{"all before it are gone", []string{a, dockerRule, c}, []string{b, c}, "2"},
		{"all are gone", []string{a, dockerRule, c}, []string{b}, "2"},
		{"the first", []string{dockerRule, c}, []string{b, c}, "1"},
		{"one of two equal ones stands again", []string{a, dockerRule, b, dockerRule}, []string{a, b, dockerRule}, "3"},
	} {
		parts := takeover.Find(host(t, strings.Join(tc.before, "\n")), owner.Docker)
		want := "*nat\n-I POSTROUTING " + tc.at + strings.TrimPrefix(dockerRule, "-A POSTROUTING") + "\nCOMMIT\n"
		if diff := cmp.Diff(want, restored(t, host(t, strings.Join(tc.now, "\n")), parts)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", tc.name, diff)
		}
	}
}

// TestTwoOwners: whoever's rules come back first, they stand in their order.
func TestTwoOwners(t *testing.T) {
	kubenet := `-A POSTROUTING ! -d 10.0.0.0/8 -m comment --comment "kubenet: SNAT for outbound traffic from cluster" -m addrtype ! --dst-type LOCAL -j MASQUERADE`
	all := []string{someones, dockerRule, kubenet, proxyJump}
	without := func(gone ...string) *snapshot.Host {
		var left []string
		for _, r := range all {
			if !strings.Contains(strings.Join(gone, "\n"), r) {
				left = append(left, r)
			}
		}
		return host(t, strings.Join(left, "\n"))
	}
	var record takeover.Record
	record = record.With(takeover.Find(without(), owner.Docker))
	record = record.With(takeover.Find(without(dockerRule), owner.Kubenet))
	for _, tc := range []struct {
		owner, place string
		gone         []string
	}{
		{owner.Docker, "2", []string{dockerRule, kubenet}}, {owner.Kubenet, "2", []string{dockerRule, kubenet}},
		{owner.Docker, "2", []string{dockerRule}}, {owner.Kubenet, "3", []string{kubenet}},
	} {
		if got := restored(t, without(tc.gone...), record.Of(tc.owner)); !strings.Contains(got, "-I POSTROUTING "+tc.place+" ") {
			t.Errorf("%s, without %q: expected place %s:\n%s", tc.owner, tc.gone, tc.place, got)
		}
	}
}

// TestTakenInTwo: a component wrote one of its rules again, which was taken again; both
// come back in one script, in their order.
func TestTakenInTwo(t *testing.T) {
	second := strings.Replace(dockerRule, "172.17", "172.18", 1)
	second = strings.Replace(second, "docker0", "br-0123456789ab", 1)
	var record takeover.Record
	for _, rules := range []string{someones + "\n" + dockerRule + "\n" + second, someones + "\n" + dockerRule} {
		record = record.With(takeover.Find(host(t, rules), owner.Docker))
	}
	got := restored(t, host(t, someones+"\n"+proxyJump), record.Of(owner.Docker))
	at := func(place, rule string) string {
		return "-I POSTROUTING " + place + strings.TrimPrefix(rule, "-A POSTROUTING") + "\n"
	}
	if diff := cmp.Diff("*nat\n"+at("2", second)+at("2", dockerRule)+"COMMIT\n", got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// native is a node with flannel's table.
func native(t *testing.T, rules string) *snapshot.Host {
	t.Helper()
	text := "table ip flannel-ipv4 { # handle 1\n\tchain postrtg { # handle 1\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n" + rules + "\t}\n}\n"
	h, err := snapshot.Read([]string{"-"}, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestNative: rules keep their order, whatever their counters count meanwhile; what nft
// wouldn't read as it prints it stays.
func TestNative(t *testing.T) {
	const kept = "\t\tip saddr 10.244.0.0/16 ip daddr 10.244.0.0/16 counter packets %N bytes 9 return # handle 3\n"
	const last = "\t\tip saddr 10.0.0.0/8 return # handle 6\n"
	one := "\t\tip saddr 10.244.1.0/24 ip daddr != 224.0.0.0/4 counter packets 1 bytes 2 masquerade fully-random # handle 4\n"
	two := "\t\tip saddr 10.244.2.0/24 ip daddr != 224.0.0.0/4 counter packets 1 bytes 2 masquerade fully-random # handle 5\n"
	counted := func(n string) string { return strings.Replace(kept, "%N", n, 1) }
	parts := takeover.Find(native(t, counted("0")+one+two+last), owner.Flannel)
	text := func(rule string) string { return strings.TrimSpace(rule[:strings.Index(rule, "#")]) }
	want := "add rule ip flannel-ipv4 postrtg handle 3 " + text(one) + "\ninsert rule ip flannel-ipv4 postrtg handle 6 " + text(two) + "\n"
	if diff := cmp.Diff(want, restored(t, native(t, counted("77")+last), parts)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	again := strings.Replace(one, "packets 1", "packets 5", 1)
	if got := restored(t, native(t, counted("1")+again+last), parts); strings.Contains(got, text(one)) {
		t.Errorf("what stands with other counters is restored:\n%s", got)
	}
	if n := len(parts[0].Again(native(t, again))); n != 1 {
		t.Errorf("again: %d", n)
	}
	hostile := "\t\tip saddr 10.244.1.0/24 ip daddr != 224.0.0.0/4 masquerade comment \"x\" ; flush ruleset #\" # handle 7\n"
	for _, script := range takeover.Remove(takeover.Find(native(t, hostile+one), owner.Flannel)) {
		if script.Input != "delete rule ip flannel-ipv4 postrtg handle 4\n" {
			t.Errorf("%s", script.Input)
		}
	}
	for name, now := range map[string]*snapshot.Host{"table": host(t, proxy), "chain": native(t, "\t}\n\tchain other {\n")} {
		if name == "chain" {
			now.Rules.Tables[0].Chains = now.Rules.Tables[0].Chains[1:]
		}
		if scripts, err := takeover.Restore(now, parts); err == nil || !strings.Contains(err.Error(), "is gone: restart flannel") || len(scripts) > 0 {
			t.Errorf("without its %s: %v, %v", name, scripts, err)
		}
	}
}

// TestOneOfTwoGone: what can be restored is, beside the error.
func TestOneOfTwoGone(t *testing.T) {
	flannel := `-A POSTROUTING -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully`
	parts := takeover.Find(native(t, "\t\tip saddr 10.244.1.0/24 ip daddr != 224.0.0.0/4 masquerade fully-random # handle 4\n"), owner.Flannel)
	parts = append(parts, takeover.Find(host(t, flannel), owner.Flannel)...)
	scripts, err := takeover.Restore(host(t, proxy), parts)
	if err == nil || len(scripts) != 1 || scripts[0].Program != "iptables-nft-restore" {
		t.Errorf("%v, %v", scripts, err)
	}
}

// TestBadRecords: none of them reaches a program.
func TestBadRecords(t *testing.T) {
	part := func(fields string) string {
		return `{"version": 1, "parts": [{"owner": "docker", "variant": "iptables-nft", "family": "ip", "table": "nat", ` + fields + `}]}`
	}
	for text, says := range map[string]string{
		"{": "unexpected EOF", `{"version": 1, "par`: "unexpected EOF", `{"version": 2}`: "expected 1", "{}": "expected 1", `null`: "expected 1",
		`{"version": 1, "parts": [{"rules": 3}]}`: "cannot unmarshal",
		`{"bip": "172.17.0.1/16"}`:                `unknown field "bip"`,
		`{"version": 1}{"version": 1}`:            "more follows",
		part(`"owner": "kube-proxy"`):             "its rules serve more",
		part(`"variant": "sh -c"`):                `parts[0]: variant "sh -c"`,
		part(`"family": "bridge"`):                `family "bridge"`,
		part(`"table": "filter"`):                 `table "filter"`,
		part(`"rules": [{"chain": "POSTROUTING", "text": "-A POSTROUTING -j ACCEPT\nCOMMIT\n*filter"}]`):   "expected one line",
		part(`"rules": [{"chain": "POSTROUTING", "text": "-F"}]`):                                          "a rule of chain POSTROUTING",
		part(`"chains": [{"name": "X\n-F", "rules": []}]`):                                                 `chain "X\n-F"`,
		part(`"chains": [{"name": "X", "rules": ["-A Y -j ACCEPT"]}]`):                                     "a rule of chain X",
		part(`"variant": "nftables", "table": "x; flush ruleset"`):                                         `table "x; flush ruleset"`,
		part(`"variant": "nftables", "table": "x", "rules": [{"chain": "c", "text": "a\nflush ruleset"}]`): "expected one line",
	} {
		if r, err := takeover.Read([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v; expected %q", text, r, err, says)
		}
	}
	if r, err := takeover.Read([]byte(part(`"rules": [{"chain": "POSTROUTING", "text": "` + dockerRule + `"}]`))); err != nil || len(r.Parts) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}
