package hostile

import (
	"fmt"
	"strings"
	"testing"
)

// TestMatrix prints how many programs try which wall on which path. An empty cell is a wall that nobody tries.
func TestMatrix(t *testing.T) {
	cells := make(map[string]map[string]int)
	total := make(map[string]int)
	programs := 0
	for _, p := range shared.corpus {
		if p.benign {
			continue
		}
		programs++
		for _, at := range p.paths {
			if cells[p.wall] == nil {
				cells[p.wall] = make(map[string]int)
			}
			cells[p.wall][at]++
			total[at]++
		}
	}
	var table strings.Builder
	row := func(name string, count map[string]int) {
		fmt.Fprintf(&table, "%-12s", name)
		for _, at := range pathNames() {
			fmt.Fprintf(&table, "%8d", count[at])
		}
		fmt.Fprintln(&table)
	}
	fmt.Fprintf(&table, "%-12s%8s%8s%8s%8s\n", "", "script", "wasm", "native", "core")
	for _, wall := range walls() {
		row(wall, cells[wall])
		for _, at := range pathNames() {
			if cells[wall][at] == 0 {
				t.Errorf("no program tries %s on the path %s", wall, at)
			}
		}
	}
	row("programs", total)
	fmt.Printf("%d hostile programs; walls and the paths on which they are tried:\n%s", programs, table.String())
	if programs < 60 {
		t.Errorf("%d programs, want 60 or more", programs)
	}
}
