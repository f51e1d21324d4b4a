// Package names knows what the programs of netfilter print for numbers: the ports
// of /etc/services and the protocols of /etc/protocols. A dump is read on another
// node than the one that wrote it, so the tables are here.
package names

import "strings"

// Service is the port of a name.
func Service(name string) (port uint16, known bool) {
	port, known = services[name]
	return port, known
}

// Protocol is the number of a protocol's name, in whatever case.
func Protocol(name string) (number uint8, known bool) {
	number, known = protocols[strings.ToLower(name)]
	return number, known
}

// services are those of Debian's /etc/services, and common ones of other
// distributions. A name stands for the same number whatever the protocol.
var services = map[string]uint16{
	"rtmp": 1, "tcpmux": 1, "nbp": 2, "zip": 6, "echo": 7, "discard": 9, "systat": 11, "daytime": 13, "netstat": 15,
	"qotd": 17, "chargen": 19, "ftp-data": 20, "fsp": 21, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "time": 37,
	"whois": 43, "tacacs": 49, "domain": 53, "bootps": 67, "bootpc": 68, "tftp": 69, "gopher": 70, "finger": 79,
	"http": 80, "kerberos": 88, "iso-tsap": 102, "acr-nema": 104, "poppassd": 106, "pop3": 110, "rpcbind": 111,
	"sunrpc": 111, "auth": 113, "nntp": 119, "ntp": 123, "epmap": 135, "netbios-ns": 137, "netbios-dgm": 138,
	"netbios-ssn": 139, "imap2": 143, "snmp": 161, "snmp-trap": 162, "snmptrap": 162, "cmip-man": 163,
	"cmip-agent": 164, "mailq": 174, "xdmcp": 177, "bgp": 179, "smux": 199, "qmtp": 209, "z3950": 210, "ipx": 213,
	"ptp-event": 319, "ptp-general": 320, "pawserv": 345, "zserv": 346, "rpc2portmap": 369, "codaauth2": 370,
	"clearcase": 371, "ldap": 389, "svrloc": 427, "https": 443, "snpp": 444, "microsoft-ds": 445, "kpasswd": 464,
	"submissions": 465, "saft": 487, "isakmp": 500, "biff": 512, "exec": 512, "login": 513, "who": 513, "shell": 514,
	"syslog": 514, "printer": 515, "talk": 517, "ntalk": 518, "route": 520, "gdomap": 538, "uucp": 540, "klogin": 543,
	"kshell": 544, "dhcpv6-client": 546, "dhcpv6-server": 547, "afpovertcp": 548, "rtsp": 554, "nntps": 563,
	"submission": 587, "nqs": 607, "asf-rmcp": 623, "qmqp": 628, "ipp": 631, "ldaps": 636, "ldp": 646, "tinc": 655,
	"silc": 706, "kerberos-adm": 749, "kerberos4": 750, "kerberos-master": 751, "passwd-server": 752, "krb-prop": 754,
	"moira-db": 775, "moira-update": 777, "moira-ureg": 779, "spamd": 783, "domain-s": 853, "iscsi": 860,
	"supfilesrv": 871, "rsync": 873, "ftps-data": 989, "ftps": 990, "telnets": 992, "imaps": 993, "pop3s": 995,
	"socks": 1080, "proofd": 1093, "rootd": 1094, "rmiregistry": 1099, "supfiledbg": 1127, "skkserv": 1178,
	"openvpn": 1194, "predict": 1210, "rmtcfg": 1236, "xtel": 1313, "xtelw": 1314, "lotusnote": 1352,
	"ms-sql-s": 1433, "ms-sql-m": 1434, "ingreslock": 1524, "datametrics": 1645, "sa-msg-port": 1646, "kermit": 1649,
	"groupwise": 1677, "l2f": 1701, "radius": 1812, "radius-acct": 1813, "mqtt": 1883, "callbook": 2000,
	"cisco-sccp": 2000, "sieve-filter": 2000, "nfs": 2049, "gnunet": 2086, "rtcm-sc104": 2101, "zephyr-srv": 2102,
	"zephyr-clt": 2103, "zephyr-hm": 2104, "gsigatekeeper": 2119, "iprop": 2121, "gris": 2135, "docker": 2375,
	"docker-s": 2376, "etcd-client": 2379, "etcd-server": 2380, "cvspserver": 2401, "venus": 2430, "venus-se": 2431,
	"codasrv": 2432, "codasrv-se": 2433, "mon": 2583, "zebrasrv": 2600, "zebra": 2601, "ripd": 2602, "ripngd": 2603,
	"ospfd": 2604, "bgpd": 2605, "ospf6d": 2606, "ospfapi": 2607, "isisd": 2608, "dict": 2628, "f5-globalsite": 2792,
	"gsiftp": 2811, "gpsd": 2947, "gds-db": 3050, "icpv2": 3130, "isns": 3205, "iscsi-target": 3260, "mysql": 3306,
	"ms-wbt-server": 3389, "nut": 3493, "distcc": 3632, "daap": 3689, "svn": 3690, "suucp": 4031, "sysrqd": 4094,
	"sieve": 4190, "dey-sapi": 4330, "f5-iquery": 4353, "epmd": 4369, "remctl": 4373, "ntske": 4460,
	"ipsec-nat-t": 4500, "fax": 4557, "hylafax": 4559, "iax": 4569, "mtn": 4691, "vxlan": 4789, "radmin-port": 4899,
	"munin": 4949, "commplex-main": 5000, "commplex-link": 5001, "sip": 5060, "sip-tls": 5061, "sips": 5061,
	"xmpp-client": 5222, "xmpp-server": 5269, "cfengine": 5308, "mdns": 5353, "llmnr": 5355, "postgres": 5432,
	"postgresql": 5432, "rplay": 5555, "freeciv": 5556, "nrpe": 5666, "nsca": 5667, "amqps": 5671, "amqp": 5672,
	"canna": 5680, "vnc-server": 5900, "wsman": 5985, "x11": 6000, "x11-1": 6001, "x11-2": 6002, "x11-3": 6003,
	"x11-4": 6004, "x11-5": 6005, "x11-6": 6006, "x11-7": 6007, "geneve": 6081, "gnutella-svc": 6346,
	"gnutella-rtr": 6347, "redis": 6379, "sun-sr-https": 6443, "sge-qmaster": 6444, "sge-execd": 6445,
	"mysql-proxy": 6446, "syslog-tls": 6514, "sane-port": 6566, "ircd": 6667, "babel": 6696, "ircs-u": 6697,
	"afs3-fileserver": 7000, "bbs": 7000, "afs3-callback": 7001, "afs3-prserver": 7002, "afs3-vlserver": 7003,
	"afs3-kaserver": 7004, "afs3-volser": 7005, "afs3-bos": 7007, "afs3-update": 7008, "afs3-rmtsys": 7009,
	"font-service": 7100, "irdmi": 8000, "zope-ftp": 8021, "http-alt": 8080, "webcache": 8080, "tproxy": 8081,
	"omniorb": 8088, "puppet": 8140, "pcsync-https": 8443, "otv": 8472, "clc-build-daemon": 8990, "cslistener": 9000,
	"websm": 9090, "xinetd": 9098, "jetdirect": 9100, "pdl-datastream": 9100, "bacula-dir": 9101, "bacula-fd": 9102,
	"bacula-sd": 9103, "git": 9418, "xmms2": 9667, "zope": 9673, "webmin": 10000, "zabbix-agent": 10050,
	"zabbix-trapper": 10051, "amanda": 10080, "kamanda": 10081, "amandaidx": 10082, "amidxtape": 10083, "nbd": 10809,
	"dicom": 11112, "memcache": 11211, "hkp": 11371, "sgi-cmsd": 17001, "sgi-crsd": 17002, "sgi-gcd": 17003,
	"sgi-cad": 17004, "db-lsp": 17500, "dcap": 22125, "gsidcap": 22128, "wnn6": 22273, "binkp": 24554,
	"mongod": 27017, "asp": 27374, "csync2": 30865, "filenet-tms": 32768, "dircproxy": 57000, "tfido": 60177,
	"fido": 60179,
}

// protocols are the names of /etc/protocols that distributions agree on, and the
// few that iptables knows itself (extensions' names: icmpv6, mh).
var protocols = map[string]uint8{
	"icmp": 1, "igmp": 2, "ggp": 3, "ipencap": 4, "ipv4": 4, "st": 5, "st2": 5, "tcp": 6, "cbt": 7, "egp": 8, "igp": 9,
	"pup": 12, "udp": 17, "hmp": 20, "xns-idp": 22, "rdp": 27, "iso-tp4": 29, "dccp": 33, "xtp": 36, "ddp": 37,
	"idpr-cmtp": 38, "ipv6": 41, "ipv6-route": 43, "ipv6-frag": 44, "idrp": 45, "rsvp": 46, "gre": 47, "esp": 50,
	"ipv6-crypt": 50, "ah": 51, "ipv6-auth": 51, "skip": 57, "ipv6-icmp": 58, "icmpv6": 58, "ipv6-nonxt": 59,
	"ipv6-opts": 60, "rspf": 73, "vmtp": 81, "eigrp": 88, "ospf": 89, "ospfigp": 89, "ospfigp.": 89, "ax.25": 93,
	"ipip": 94, "etherip": 97, "encap": 98, "pim": 103, "ipcomp": 108, "vrrp": 112, "l2tp": 115, "isis": 124,
	"sctp": 132, "fc": 133, "mobility-header": 135, "ipv6-mh": 135, "mh": 135, "udplite": 136, "mpls-in-ip": 137,
	"manet": 138, "hip": 139, "shim6": 140, "wesp": 141, "rohc": 142, "ethernet": 143,
}
