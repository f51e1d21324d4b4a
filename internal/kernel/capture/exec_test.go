package capture

import (
	"io"
	"testing"
)

// TestBounded: what a program prints is bounded however it is copied.
func TestBounded(t *testing.T) {
	b := &bounded{}
	if _, ok := any(b).(io.ReaderFrom); ok {
		t.Error("io.Copy would fill it without a bound")
	}
	block := make([]byte, 1<<20)
	for range most >> 20 {
		if _, err := b.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Write(block[:1]); err == nil || !b.over {
		t.Errorf("one byte more: %v", err)
	}
}
