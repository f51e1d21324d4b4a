// Package pages holds the pages about the findings of `unmasq doctor`, one a code,
// so that the program can show them.
package pages

import "embed"

//go:embed *.md
var files embed.FS

// Of is the page of a code; false where there is none.
func Of(code string) (string, bool) {
	text, err := files.ReadFile(code + ".md")
	return string(text), err == nil
}
