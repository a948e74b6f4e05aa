package bundle

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"mayfly/internal/bot"
)

const (
	maxPath  = 200 // bytes of a path: it must fit under the bot's folder on any file system
	maxDepth = 16  // elements of a path
)

// collector gathers the files of a bundle, whichever way they come, and the faults of their paths and sizes.
type collector struct {
	ceilings Ceilings
	files    []File
	admitted int               // files read or being read
	total    int64             // bytes of them
	spelling map[string]string // folded path of each file and folder → as it was first written
	folders  map[string]bool   // spelled path → whether it is a folder
	problems Problems
	overfull bool // a ceiling of the whole was passed: what follows is not taken
}

func newCollector(c Ceilings) *collector {
	return &collector{ceilings: c, spelling: map[string]string{}, folders: map[string]bool{}}
}

// fault notes a fault. Whoever has made more of them than a report holds is not read further.
func (c *collector) fault(file, message, fix string) {
	c.problems = append(c.problems, Problem{File: printable(file), Message: message, Fix: fix})
	c.overfull = c.overfull || len(c.problems) > maxProblems
}

// full notes a passed ceiling of the whole: nothing more is taken.
func (c *collector) full(message string) {
	c.fault("bundle", message, "leave out what the bot does not need at run time")
	c.overfull = true
}

// admit decides whether the content of a file, of size bytes as far as is known, should be read at all, and says why not.
// What it admits counts, whatever comes of reading it, so that no archive can make us read more than the ceilings.
func (c *collector) admit(path string, size int64) bool {
	if c.overfull {
		return false
	}
	if message, fix := pathFault(path); message != "" {
		c.fault(path, message, fix)
		return false
	}
	if leftOut(path) {
		return false
	}
	if path == AccountName {
		c.fault(path, "holds the account's password, and everything in a bundle is for the bot to read",
			"take it out of the bundle; to install, attach it to the message beside the bundle")
		return false
	}
	if c.admitted == c.ceilings.Files {
		c.full(fmt.Sprintf("more than %d files, the operator's ceiling", c.ceilings.Files))
		return false
	}
	if size > c.ceilings.File {
		c.fault(path, "larger than "+FormatSize(c.ceilings.File)+", the operator's ceiling for one file", "make it smaller or leave it out")
		return false
	}
	if c.total+size > c.ceilings.Total {
		c.full("larger than " + FormatSize(c.ceilings.Total) + " in all, the operator's ceiling")
		return false
	}
	c.admitted++
	c.total += size
	return c.claim(path)
}

// add reads a file that admit let pass. More than the size that was admitted is an error.
func (c *collector) add(path string, size int64, r io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(r, size+1))
	if err != nil {
		return err
	}
	if int64(len(data)) > size {
		return errors.New("longer than its size says")
	}
	c.files = append(c.files, File{Path: path, Data: data})
	return nil
}

// claim takes the names of the path and of the folders above it, and reports what they clash with.
func (c *collector) claim(path string) bool {
	for end := 0; end < len(path); end++ {
		next := strings.IndexByte(path[end:], '/')
		if next < 0 {
			break
		}
		end += next
		if !c.claimName(path, path[:end], true) {
			return false
		}
	}
	return c.claimName(path, path, false)
}

func (c *collector) claimName(file, name string, folder bool) bool {
	key := fold(name)
	first, taken := c.spelling[key]
	if !taken {
		c.spelling[key], c.folders[name] = name, folder
		return true
	}
	switch {
	case first != name:
		c.fault(file, fmt.Sprintf("%q and %q differ only in case or Unicode composition", printable(name), printable(first)), "rename one of them")
	case folder && c.folders[name]:
		return true
	case folder != c.folders[name]:
		c.fault(file, fmt.Sprintf("%q is both a file and a folder", printable(name)), "rename one of them")
	default:
		c.fault(file, "is there twice", "keep one of them")
	}
	return false
}

// fold gives the same string for names that a file system that ignores case or composition takes for one.
func fold(name string) string { return norm.NFC.String(cases.Fold().String(norm.NFC.String(name))) }

// bundle finishes: the manifest is checked against the files, and all problems are returned together.
func (c *collector) bundle() (*Bundle, error) {
	sort.Slice(c.files, func(i, j int) bool { return c.files[i].Path < c.files[j].Path })
	manifest := c.manifest()
	if err := c.problems.orNil(); err != nil {
		return nil, err
	}
	return &Bundle{Manifest: manifest, Files: c.files, Digest: digest(c.files)}, nil
}

func (c *collector) manifest() bot.Manifest {
	i := c.find(ManifestName)
	if i < 0 {
		c.manifestMissing()
		return bot.Manifest{}
	}
	file := func(path string) ([]byte, bool) {
		i := c.find(path)
		if i < 0 {
			return nil, false
		}
		return c.files[i].Data, true
	}
	manifest, problems := parseManifest(c.files[i].Data, file, c.ceilings)
	c.problems = append(c.problems, problems...)
	return manifest
}

// manifestMissing says where the manifest is instead, since the commonest cause is a zip of the folder itself. It adds
// nothing when bot.toml may be among the files that were refused.
func (c *collector) manifestMissing() {
	for _, p := range c.problems {
		if c.overfull || p.File == ManifestName {
			return
		}
	}
	for _, f := range c.files {
		if folder, ok := strings.CutSuffix(f.Path, "/"+ManifestName); ok {
			c.fault(ManifestName, fmt.Sprintf("is in the folder %q, not at the root", printable(folder)), "pack what is in the folder, not the folder")
			return
		}
	}
	c.fault(ManifestName, "is missing", "add it at the root of the bundle; it names the bot, its author and its main file")
}

func (c *collector) find(path string) int {
	i := sort.Search(len(c.files), func(i int) bool { return c.files[i].Path >= path })
	if i < len(c.files) && c.files[i].Path == path {
		return i
	}
	return -1
}

// pathFault says what is wrong with a path, and what to write instead, or "".
func pathFault(path string) (message, fix string) {
	switch {
	case path == "":
		return "a file has no name", "give it one"
	case !utf8.ValidString(path):
		return "the name is not UTF-8", "use letters of ASCII"
	case len(path) > maxPath:
		return fmt.Sprintf("the path is longer than %d bytes", maxPath), "shorten it"
	case strings.Count(path, "/") >= maxDepth:
		return fmt.Sprintf("more than %d folders deep", maxDepth-1), "put it higher up"
	case strings.ContainsRune(path, '\\'):
		return "backslash in the path", "separate folders with /"
	case path[0] == '/' || len(path) > 1 && path[1] == ':':
		return "absolute path", "write it relative to the root of the bundle"
	case strings.ContainsFunc(path, func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf) }):
		return "control or invisible characters in the path", "use letters of ASCII"
	}
	for element := range strings.SplitSeq(path, "/") {
		switch element {
		case "":
			return "empty element in the path", "write it without double or trailing slashes"
		case ".", "..":
			return fmt.Sprintf("%q in the path", element), "write it relative to the root of the bundle"
		}
	}
	return "", ""
}

// leftOut reports whether the path is hidden: .git, .DS_Store and the like.
func leftOut(path string) bool {
	for element := range strings.SplitSeq(path, "/") {
		if element[0] == '.' || element == "__MACOSX" {
			return true
		}
	}
	return false
}

// printable makes a foreign name fit for one line of a report.
func printable(name string) string {
	if len(name) > maxPath {
		name = name[:maxPath] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, name)
}
