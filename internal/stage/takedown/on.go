//go:build takedown

package takedown

// down is set by the linker.
var down string

// Down reports whether the wall has been taken down.
func Down(w Wall) bool { return string(w) == down }
