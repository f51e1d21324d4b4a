package doctor_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/doctor"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// inDumps are the findings in recorded nodes where real programs wrote the rules, by
// the beginning of the dump's name; of all others nothing is found.
var inDumps = map[string][]string{
	"aws-vpc-cni": {"families-differ"},                          // it translates IPv4 alone
	"cni-bridge-": {"pods-masqueraded"},                         // ipMasq: true, and a route to another node's pods
	"k3s-":        {"exemption-overridden", "two-masqueraders"}, // flannel, and ip-masq-agent behind it
}

func TestRealPrograms(t *testing.T) {
	files, err := filepath.Glob("../judge/testdata/dumps/*")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d dumps: %v", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, err := snapshot.Read([]string{file}, nil)
			must(t, err)
			var want []string
			for prefix, codes := range inDumps {
				if strings.HasPrefix(name, prefix) {
					want = codes
				}
			}
			r := doctor.Examine(doctor.Node{Host: host})
			got := slices.Compact(slices.Sorted(slices.Values(codes(&r))))
			if !slices.Equal(got, want) {
				t.Errorf("found %v, expected %v\n%s", got, want, text(&r))
			}
		})
	}
}
