package stage

import seccomp "github.com/elastic/go-seccomp-bpf"

// commonArch are the calls of common that only arm64 has, by the name of the library's table for newfstatat.
func commonArch() []string { return []string{"fstatat"} }

func conditionsArch() []seccomp.NameWithConditions { return nil }
