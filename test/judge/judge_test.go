// Package judge_test holds the simulator against the kernel. Rules are loaded
// with the real programs into a namespace, what those list there is read as an
// operator's dump would be, and each packet's fate, as seen on the wire, must be
// among the outcomes that sim predicts.
//
// The rulesets are random ones (random_test.go) and dumps of real programs
// (dumps_test.go), of which explain --replay is asked too (replay_test.go).
package judge_test

import (
	"testing"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }
