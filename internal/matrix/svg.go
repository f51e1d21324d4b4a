package matrix

func (m *Matrix) SVG() string  { return "" }
func (m *Matrix) HTML() string { return "" }
