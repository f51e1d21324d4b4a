package nftables

// ReadText reads nft list ruleset of nft 0.9 to 1.1, and its command form (add
// table …, add rule …), alone or mixed. firstLine is the number of text's first
// line in its file.
func ReadText(text string, firstLine int) (*Ruleset, []Problem) {
	return &Ruleset{}, []Problem{{Line: firstLine, Why: "nft's text isn't read yet"}}
}
