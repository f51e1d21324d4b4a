package lab

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

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
	call := s.Calls[0]
	to, err := s.Space(call.To)
	if err != nil {
		return err
	}
	address := to.addresses()[0]
	fmt.Fprintf(out, "\nTry:\n  %s lab probe %s    # who is seen as whom\n", program, s.Name)                                                         //nolint:errcheck // the last write tells
	fmt.Fprintf(out, "  ip netns exec %s bash -c 'cat </dev/tcp/%s/%d'    # a peer says whom it sees\n", s.Namespace(call.From), address, probe.Port) //nolint:errcheck // the last write tells
	for _, host := range s.Hosts() {
		for _, policy := range st.Policies {
			fmt.Fprintf(out, "  ip netns exec %s %s agent --config %s &\n", s.Namespace(host), program, policy) //nolint:errcheck // the last write tells
		}
	}
	_, err = fmt.Fprintf(out, "  %s lab down %s\n", program, s.Name)
	return err
}
