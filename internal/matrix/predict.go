package matrix

// Predict makes the matrix of a situation. It reads nothing but its argument.
func Predict(s Situation) Matrix {
	m := Matrix{Version: Version, Rows: []Row{}, Columns: []Column{}, Cells: []Cell{}, Notes: []string{}}
	for _, n := range s.Nodes {
		m.Nodes = append(m.Nodes, n.Name)
	}
	return m
}
