package stage

import seccomp "github.com/elastic/go-seccomp-bpf"

// commonArch are further calls of common: arm64 has none of the older forms.
func commonArch() []string { return nil }

func conditionsArch() []seccomp.NameWithConditions { return nil }
