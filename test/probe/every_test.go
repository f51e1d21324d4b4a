//go:build e2e

package probe_test

// everyForm of each scenario is measured.
const everyForm = true
