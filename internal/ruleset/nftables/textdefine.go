package nftables

import "strings"

// maxValue bounds a variable's value, and maxGrowth what all of them add.
const (
	maxValue  = 64 << 10
	maxGrowth = 4 << 20
)

// substitute writes the values of variables where they are used, as a script has
// them:
//
//	define lan = { 10.0.0.0/8, 192.168.0.0/16 }
//	add rule ip nat post ip saddr $lan masquerade
//
// Lines keep their numbers.
func substitute(text string, line int) (string, []Problem) {
	if !strings.Contains(text, "define ") || !strings.Contains(text, "$") {
		return text, nil
	}
	s := variables{values: map[string]string{}, growth: maxGrowth}
	var out strings.Builder
	for len(text) > 0 {
		command := wholeLine(text)
		text = text[len(command):]
		name, value, isDefine := cutDefine(command)
		if !isDefine {
			out.WriteString(s.replaced(command, line))
		} else {
			value = s.replaced(value, line)
			if len(value) > maxValue {
				s.problems = append(s.problems, Problem{Line: line, Text: short(command), Why: "the variable's value is too long"})
			} else {
				s.values[name] = value
			}
			out.WriteString(strings.Repeat("\n", strings.Count(command, "\n")))
		}
		line += strings.Count(command, "\n")
	}
	return out.String(), s.problems
}

type variables struct {
	values   map[string]string
	growth   int
	problems []Problem
}

// wholeLine is the first line, with those that continue it: after a backslash,
// and within the braces of a definition.
func wholeLine(text string) string {
	depth := 0
	define := strings.HasPrefix(strings.TrimLeft(text[:min(len(text), 200)], " \t"), "define ")
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{':
			depth++
		case '}':
			depth--
		case '\n':
			if define && (depth > 0 || text[:i][max(i-1, 0):] == "\\") && i < maxValue {
				continue
			}
			return text[:i+1]
		}
	}
	return text
}

// cutDefine reads "define NAME = VALUE".
func cutDefine(line string) (name, value string, ok bool) {
	line = strings.TrimLeft(line, " \t")
	rest, ok := strings.CutPrefix(line, "define ")
	if !ok {
		rest, ok = strings.CutPrefix(line, "redefine ")
	}
	if !ok {
		return "", "", false
	}
	name, value, ok = strings.Cut(rest, "=")
	value = strings.ReplaceAll(value, "\\\n", " ")
	lines := strings.Split(value, "\n")
	for i, l := range lines {
		if !strings.Contains(l, `"`) {
			lines[i], _, _ = strings.Cut(l, "#")
		}
	}
	value = strings.TrimSpace(strings.Join(lines, " "))
	return strings.TrimSpace(name), strings.TrimSpace(strings.TrimSuffix(value, ";")), ok
}

// replaced is the line with the values of its variables. Those that aren't known
// stay, and aren't understood later.
func (s *variables) replaced(line string, number int) string {
	if !strings.Contains(line, "$") {
		return line
	}
	var out strings.Builder
	quoted := false
	for i := 0; i < len(line); {
		c := line[i]
		n := 0
		switch {
		case c == '"':
			quoted = !quoted
		case c == '#' && !quoted:
			out.WriteString(line[i:])
			return out.String()
		case c == '$' && !quoted:
			n = wordLength(line[i+1:])
		}
		value, known := s.values[line[i+1:i+1+n]]
		if n == 0 || !known || len(value) > s.growth {
			out.WriteString(line[i : i+1])
			i++
			continue
		}
		s.growth -= len(value)
		out.WriteString(value)
		i += 1 + n
	}
	return out.String()
}
