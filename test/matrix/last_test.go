//go:build !e2e

package matrix_test

const everyForm = false
