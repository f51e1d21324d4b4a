//go:build !e2e

package probe_test

// everyForm of each scenario takes minutes; the last one has to do.
const everyForm = false
