// Command hello is the least module of the Go compiler, to be measured.
package main

import "os"

func main() { os.Stdout.WriteString("hello\n") }
