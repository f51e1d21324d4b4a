package doctor_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/doctor"
)

const ownPolicy = `apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: own}
spec:
  rules:
  - {name: office, from: {cidrs: [10.244.1.0/24]}, to: {cidrs: [192.0.2.0/24], ports: [{protocol: TCP, port: 80}]}, action: Keep}
  - {name: fixed, from: {cidrs: [10.9.0.0/16]}, action: SNAT, snat: {addresses: [192.0.2.7, 192.0.2.16-192.0.2.19]}}
  - {name: all, from: {cidrs: [10.244.1.0/24]}, action: Masquerade}
`

// tableLesson is about unmasq's own table; POLICY, SAVED and RECORD stand for files.
type tableLesson struct {
	code, name, provoke string
	// flags of doctor.
	flags []string
	alike map[string]string
}

var tableLessons = []tableLesson{
	{
		code: "table-missing", name: "somebody flushed", flags: []string{"-f", "POLICY"},
		provoke: "unmasq apply -f POLICY; nft delete table inet unmasq",
		alike: map[string]string{
			"in force":                 "unmasq apply -f POLICY",
			"in force, applied twice":  "unmasq apply -f POLICY; unmasq apply -f POLICY",
			"in force, with much else": "unmasq apply -f POLICY\n" + docker + flannel + clusterIP,
		},
	},
	{
		code: "table-altered", name: "a chain is empty", flags: []string{"-f", "POLICY"},
		provoke: "unmasq apply -f POLICY; nft flush chain inet unmasq postrouting",
		alike: map[string]string{
			"as it should be":    "unmasq apply -f POLICY; unmasq apply -f POLICY",
			"with another's too": "unmasq apply -f POLICY; nft add table inet unmasq-of-somebody",
			"with traffic":       "unmasq apply -f POLICY; ip route get 192.0.2.2 >/dev/null",
		},
	},
	{code: "table-altered", name: "behind its policy", flags: []string{"-f", "POLICY"}, provoke: "sed '/name: all/d' POLICY | unmasq apply -f -"},
	{code: "table-altered", name: "an element more", flags: []string{"-f", "POLICY"}, provoke: "unmasq apply -f POLICY; nft add element inet unmasq to-1-ip '{ 198.51.100.0/24 }'"},
	{code: "table-altered", name: "a link more", flags: []string{"-f", "POLICY"}, provoke: "unmasq apply -f POLICY; ip addr add 198.18.0.1/24 brd + dev eth1"},
	{
		code: "saved-table", name: "all was saved", flags: []string{"--saved-rules", "SAVED"},
		provoke: "unmasq apply -f POLICY; nft list ruleset > SAVED",
		alike: map[string]string{
			"one's own tables": "unmasq apply -f POLICY; nft add table inet unmasquerade; nft list table inet unmasquerade > SAVED; echo '# not here: table inet unmasq {' >> SAVED",
			"no such file":     "unmasq apply -f POLICY",
		},
	},
	{
		code: "rules-returned", name: "docker was restarted", flags: []string{"--takeover-record", "RECORD"},
		provoke: takenOver + masqueradeDocker,
		alike: map[string]string{
			"taken over":                  takenOver,
			"handed back":                 takenOver + "unmasq takeover --record RECORD --owner docker --handback",
			"another network of docker's": takenOver + "ip link add br-0123456789ab type bridge; iptables -t nat -I POSTROUTING -s 172.18.0.0/16 ! -o br-0123456789ab -j MASQUERADE",
		},
	},
	{
		code: "saved-table", name: "in what is included", flags: []string{"--saved-rules", "SAVED"},
		provoke: `unmasq apply -f POLICY; mkdir -p SAVED.d; nft list ruleset > SAVED.d/all.nft; echo 'include "'SAVED.d/'*.nft"' > SAVED`,
	},
}

const (
	masqueradeDocker = "iptables -t nat -I POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n"
	takenOver        = "unmasq apply -f POLICY; ip link add docker0 type bridge\n" + masqueradeDocker + "unmasq takeover --record RECORD --owner docker\n"
)

func TestTableFindings(t *testing.T) {
	for _, c := range tableLessons {
		t.Run(c.code+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			l, in := newTableLab(t, c.provoke)
			r := l.doctor(in, c.flags)
			if got := codes(&r); !slices.Equal(got, []string{c.code}) {
				t.Fatalf("found %v\n%s", got, text(&r))
			}
			l.shell(l.node, strings.Join(r.Findings[0].Mend, "\n"))
			if r = l.doctor(in, c.flags); len(r.Findings) > 0 {
				t.Errorf("after the mend there is still:\n%s", text(&r))
			}
			if strings.HasPrefix(c.code, "saved") {
				l.shell(l.node, in.Replace("nft -c -f SAVED"))
			}
		})
		for name, script := range c.alike {
			t.Run(c.code+"/"+c.name+"/alike "+name, func(t *testing.T) {
				t.Parallel()
				l, in := newTableLab(t, script)
				if r := l.doctor(in, c.flags); slices.Contains(codes(&r), c.code) {
					t.Errorf("found where it isn't:\n%s", text(&r))
				}
			})
		}
	}
}

// newTableLab is a lab with a policy in a file.
func newTableLab(t *testing.T, script string) (*lab, *strings.Replacer) {
	t.Helper()
	dir := t.TempDir()
	in := strings.NewReplacer("POLICY", filepath.Join(dir, "policy.yaml"), "SAVED", filepath.Join(dir, "nftables.conf"), "RECORD", filepath.Join(dir, "takeover.json"))
	must(t, os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(ownPolicy), 0o600))
	return newLab(t, in.Replace(script)), in
}

// doctor runs the program on the node.
func (l *lab) doctor(in *strings.Replacer, flags []string) doctor.Report {
	l.t.Helper()
	args := []string{"doctor", "-o", "json", "--cni-dir", l.path}
	for _, f := range flags {
		args = append(args, in.Replace(f))
	}
	out, err := l.node.Run("", filepath.Join(l.path, "unmasq"), args...)
	var r doctor.Report
	if json.Unmarshal([]byte(out), &r) != nil {
		l.t.Fatalf("%v\n%s", err, out)
	}
	if (err != nil) != r.Errors() {
		l.t.Errorf("status %v, errors %t", err, r.Errors())
	}
	return r
}
