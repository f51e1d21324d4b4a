package programs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pause between two looks at a lock: waiting in the kernel couldn't be called off.
const pause = 50 * time.Millisecond

// Lock a folder against others that lock it, until it is unlocked or the process ends.
// It waits as long as a program of theirs may take.
func Lock(ctx context.Context, folder string) (unlock func(), err error) {
	dir, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { dir.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", folder, err), ctx.Err(), dir.Close())
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}
