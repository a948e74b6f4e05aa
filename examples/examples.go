// Package examples carries the example bots inside the binary, for the demo.
package examples

import (
	"embed"
	"io/fs"
)

//go:embed dice
var files embed.FS

// Dice is the folder of the dice bot.
func Dice() (fs.FS, error) { return fs.Sub(files, "dice") }
