// Package programs runs iptables-restore and nft on rules that aren't unmasq's,
// where a person has asked for it. It is no part of the enforcing path.
package programs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/capture"
)

// timeout of one program. Of the lock of iptables-legacy others may have to be waited for.
const timeout = 60 * time.Second

// Run a program to its end with an input. The error has what it said.
func Run(ctx context.Context, program string, args []string, input string) error {
	path, err := capture.Find(program)
	if err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = strings.NewReader(input)
	said, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(said)))
	}
	return nil
}
