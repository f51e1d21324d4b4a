// Command awsrules writes the rules of the AWS VPC CNI, with its own code, as its
// daemon does for the networks of a VPC and the primary address of a node, which is
// on eth0. It goes by the daemon's environment.
//
//	awsrules CIDR,… ADDRESS
package main

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/aws/amazon-vpc-cni-k8s/pkg/networkutils"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "awsrules:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: awsrules CIDR,… ADDRESS")
	}
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	primary := net.ParseIP(args[1])
	if primary == nil {
		return fmt.Errorf("%q is not an address", args[1])
	}
	n, err := networkutils.New()
	if err != nil {
		return err
	}
	const v6 = false // where nothing is written
	return n.UpdateHostSNATRules(strings.Split(args[0], ","), link.HardwareAddr.String(), &primary, v6)
}
