package netns

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// Do runs fn inside the namespace, on an OS thread of its own that is brought
// back afterwards, or thrown away where that fails. A panic and a Goexit
// (t.FailNow) in fn go on in the caller.
//
// Sockets that fn opens stay in the namespace for good. Goroutines that fn
// starts do NOT run in it; nor do name resolution and dialling by name, which
// the net package hands to goroutines of its own. Dial and listen on literal
// addresses.
func (n *NS) Do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(n.Fd(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", n.Path(), err)
		}
		return fn()
	})
}

// outcome of a function that ran on another goroutine.
type outcome struct {
	err    error
	panic  string // with the stack; empty without a panic
	exited bool   // by runtime.Goexit
}

// onThread runs fn on a thread whose network namespace fn may change.
func onThread(fn func() error) error {
	done := make(chan outcome, 1)
	go runLocked(fn, done)
	o := <-done
	switch {
	case o.panic != "":
		panic(o.panic)
	case o.exited:
		runtime.Goexit()
	}
	return o.err
}

// runLocked never changes the main thread: /proc/self is that thread's view,
// and other goroutines read it.
func runLocked(fn func() error, done chan<- outcome) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		other := make(chan outcome, 1)
		go runLocked(fn, other) // this thread is locked, so on another one
		o := <-other
		runtime.UnlockOSThread()
		done <- o
		return
	}
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		done <- outcome{err: err}
		return
	}
	o := outcome{exited: true}
	defer func() {
		if p := recover(); p != nil {
			o = outcome{panic: fmt.Sprintf("%v\n\n%s", p, debug.Stack())}
		}
		// A thread that can't go home stays locked, and ends with this goroutine.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		home.Close()
		done <- o
	}()
	o = outcome{err: fn()}
}
