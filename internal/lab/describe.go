package lab

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/probe"
)

// Describe writes what stands and what can be tried there; program is how the
// person calls unmasq.
func (st *Standing) Describe(out io.Writer, program string) error {
	s := st.Scenario
	title := (&Result{Scenario: s.Name, Form: st.Form.Name, Variant: st.Variant}).Title()
	fmt.Fprintf(out, "%s is up.\n\n", title) //nolint:errcheck // Flush tells
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "  NAMESPACE\tWHAT\tADDRESSES") //nolint:errcheck // Flush tells
	for i := range s.Spaces {
		var addresses []string
		for _, a := range s.Spaces[i].addresses() {
			addresses = append(addresses, a.String())
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\n", s.Namespace(s.Spaces[i].Name), s.Spaces[i].Role, strings.Join(addresses, " ")) //nolint:errcheck // Flush tells
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return st.suggest(out, program)
}

// suggest writes commands to try: with the first call to a service, where there is one.
func (st *Standing) suggest(out io.Writer, program string) error {
	s := st.Scenario
	call := s.Calls[max(slices.IndexFunc(s.Calls, func(c Call) bool { return c.Service != "" }), 0)]
	target, err := s.Target(call, packet.IPv4Family)
	if err != nil {
		return err
	}
	from, err := s.Space(call.From)
	if err != nil {
		return err
	}
	host := s.Hosts()[0]
	if from.Role == Pod {
		host = from.Ports[0].Space
	}
	in := "ip netns exec " + s.Namespace(host)
	lines := []string{
		fmt.Sprintf("%s lab probe %s    # who is seen as whom", program, s.Name),
		fmt.Sprintf("ip netns exec %s bash -c 'cat </dev/tcp/%s/%d'    # a peer says whom it sees", s.Namespace(call.From), target.Addr(), target.Port()),
		fmt.Sprintf("%s tcpdump -lni any tcp port %d or tcp port %d    # meanwhile: the connection before and after translation", in, probe.Port, target.Port()),
		fmt.Sprintf("%s %s explain %s %s", in, program, from.Address(packet.IPv4Family), target),
		fmt.Sprintf("%s %s doctor", in, program),
	}
	if target.Port() == probe.Port {
		lines[2] = strings.Replace(lines[2], fmt.Sprintf(" or tcp port %d", probe.Port), "", 1)
	}
	for _, host := range s.Hosts() {
		for _, policy := range st.Policies {
			lines = append(lines, fmt.Sprintf("ip netns exec %s %s agent --config %s &", s.Namespace(host), program, policy))
		}
	}
	lines = append(lines, fmt.Sprintf("%s lab down %s", program, s.Name))
	_, err = fmt.Fprintf(out, "\nTry:\n  %s\n", strings.Join(lines, "\n  "))
	return err
}
