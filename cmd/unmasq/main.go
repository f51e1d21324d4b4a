// Command unmasq controls and explains source NAT on Linux and Kubernetes nodes.
package main

import (
	"os"

	"github.com/unmasq/unmasq/internal/cli"
)

// version is set by the linker.
var version = "devel"

func main() { os.Exit(cli.Main(version, cli.Args(os.Args), os.Stdin, os.Stdout, os.Stderr)) }
