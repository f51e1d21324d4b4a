// Package lines splits what people paste into lines.
package lines

import (
	"iter"
	"strings"
)

// Of yields the lines of a text with their numbers, without blanks around
// them. A line ends with LF, CR LF or, in files that went through a Mac or a web
// form, CR alone. first is the number of the first, at least 1.
func Of(text string, first int) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		number := max(first, 1)
		for len(text) > 0 {
			var line string
			line, text, _ = strings.Cut(text, "\n")
			line = strings.TrimSuffix(line, "\r")
			for more := true; more; number++ {
				var one string
				one, line, more = strings.Cut(line, "\r")
				if !yield(number, strings.Trim(one, " \t\f\v\u00a0\ufeff")) {
					return
				}
			}
		}
	}
}
