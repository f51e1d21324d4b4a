// Package guards_test proves that each guard of the table is needed: beside the
// rules of the component that it protects, a packet leaves as that component
// wants it with the guard, and wrongly without.
package guards_test

import (
	"testing"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }
