// Package accountreader reads core's database, dc.db.
package accountreader

import (
	"io"
	"os"
)

// Main is the reader's process.
func Main(stdin, stdout, stderr *os.File, args []string) int { return 1 }

// Serve answers requests on in until it ends.
func Serve(in io.Reader, out io.Writer, dir string) error { return nil }
