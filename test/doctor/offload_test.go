package doctor_test

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/unmasq/unmasq/internal/snapshot"
)

// offloadLessons are about flowtables. Not every kernel has them: the rule and the
// table of the lab stand in for those that nft 1.0.6 lists where there are such, and
// that test/offload sends packets through.
var offloadLessons = []lesson{
	{
		code: "offloaded", name: "a rule behind the flowtable",
		provoke: fast + "iptables -A FORWARD -s 10.244.1.0/24 -d 198.51.100.77 -j REJECT", before: (*lab).flowtable, alikeToo: true,
		alike: map[string]string{
			"established connections pass all the same": fast + `iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables -A FORWARD -d 198.51.100.77 -j DROP
nft add table inet own; nft add chain inet own forward '{ type filter hook forward priority 10; policy drop; }'
nft add rule inet own forward ct state '{ established, related }' accept; nft add rule inet own forward ip daddr 198.51.100.77 drop; nft add rule inet own forward accept`,
			"rules for new ones and for nonsense": fast + `iptables -A FORWARD -d 198.51.100.77 -m conntrack --ctstate NEW -j REJECT; iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP
iptables -A FORWARD -d 198.51.100.77 -p tcp --syn -j DROP; iptables -A INPUT -s 10.244.1.0/24 -p tcp --dport 22 -j DROP`,
			"nothing is added to it":  strings.Replace(fast, "flow add @f", "no flow", 1) + "iptables -A FORWARD -d 198.51.100.77 -j DROP",
			"for links that are none": "ip link set eth0 down; ip link set cni0 down\n" + fast + "iptables -A FORWARD -d 198.51.100.77 -j DROP",
			"without any other rule":  fast,
		},
	},
	{
		code: "offloaded", name: "a rule of nft",
		provoke: fast + `nft -f - <<'END'
table inet own {
	chain blocked {
		ip daddr 198.51.100.77 counter drop
	}
	chain forward {
		type filter hook forward priority 10; policy accept;
		ct state vmap { invalid : drop, related : accept }
		iifname "cni0" jump blocked
	}
}
END`,
		before: (*lab).flowtable,
	},
}

// fast is a chain whose second rule stands for one that adds to a flowtable.
const fast = `nft -f - <<'END'
table inet fast {
	chain forward {
		type filter hook forward priority filter; policy accept;
		meta l4proto { tcp, udp } counter comment "flow add @f"
	}
}
END
`

// flowtable shows the rule as one that adds to a flowtable, which is there until nft
// deletes it.
func (l *lab) flowtable() {
	gone := filepath.Join(l.path, "gone")
	must(l.t, os.WriteFile(filepath.Join(l.path, "nft"), []byte("#!/bin/sh\nPATH=${PATH#*:}\ncase \"$*\" in 'delete flowtable inet fast f') touch "+gone+";; *) exec nft \"$@\";; esac\n"), 0o700))
	l.taken = func(files map[string][]byte) {
		if _, err := os.Stat(gone); err == nil {
			return
		}
		files[snapshot.FileNFT] = []byte(offloading(string(files[snapshot.FileNFT])))
	}
}

// offloading is nft's JSON with the flowtable, and the rule that adds to it where there is one.
func offloading(list string) string {
	list = strings.Replace(list, "\n]}", `,
{"flowtable": {"family": "inet", "name": "f", "table": "fast", "handle": 99, "hook": "ingress", "prio": 0, "dev": ["cni0", "eth0"]}}
]}`, 1)
	before, rule, found := strings.Cut(list, `"comment": "flow add @f", "expr": [`)
	if !found {
		return list
	}
	return before + `"expr": [` + strings.Replace(rule, `}}]}}`, `}}, {"flow": {"op": "add", "flowtable": "@f"}}]}}`, 1)
}
