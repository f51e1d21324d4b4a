package policy

// Describe says in a few words whom a rule concerns. (Being written.)
func Describe(r *Rule) (from, to string) { return "?", "?" }
