package wasm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// kind is what an import or export is, as numbered in the binary format.
type kind byte

const (
	kindFunction kind = iota
	kindTable
	kindMemory
	kindGlobal
)

func (k kind) String() string {
	names := [...]string{"function", "table", "memory", "global"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// signature is a function's type: the encoded types of its parameters and of its results.
type signature struct{ params, results string }

// memory is what a module says about one of its memories, in pages.
type memory struct {
	min    uint64
	shared bool
	wide   bool // addressed by 64 bits
}

type imported struct {
	module, name string
	kind         kind
	function     signature // of a function
}

type exported struct {
	kind  kind
	index uint32
}

// module is what the check wants to know of a module: how it meets the world. The code is the engine's to judge.
type module struct {
	types     []signature
	functions []signature // the imported ones first
	imports   []imported
	memories  []memory // the imported ones first
	exports   map[string]exported
}

var (
	errTruncated = errors.New("it ends too early")
	errMalformed = errors.New("it is malformed")
)

// The first bytes of a module, and of what is taken for one.
const (
	magic         = "\x00asm"
	moduleVersion = "\x01\x00\x00\x00"
)

// The sections that are read, and those that are not lists.
const (
	sectionCustom    = 0
	sectionType      = 1
	sectionImport    = 2
	sectionFunction  = 3
	sectionMemory    = 5
	sectionExport    = 7
	sectionStart     = 8
	sectionDataCount = 12
)

// parse reads a module's sections, as far as they are of interest. The bytes begin with magic and version.
func parse(b []byte) (*module, error) {
	m := &module{exports: make(map[string]exported)}
	r := reader{b: b[len(magic)+len(moduleVersion):]}
	for len(r.b) > 0 {
		id := r.byte()
		body := reader{b: r.bytes(r.uint32())}
		if r.err == nil {
			m.section(id, &body)
		}
		if err := errors.Join(r.err, body.err); err != nil {
			return nil, fmt.Errorf("section %d: %w", id, err)
		}
	}
	return m, nil
}

func (m *module) section(id byte, r *reader) {
	if id == sectionCustom || id == sectionStart || id == sectionDataCount {
		return
	}
	n := r.uint32()
	if uint64(n) > uint64(len(r.b)) { // wazero would make room for as many
		r.fail(errTruncated)
		return
	}
	var each func(*reader)
	switch id {
	case sectionType:
		each = m.readType
	case sectionImport:
		each = m.readImport
	case sectionFunction:
		each = m.readFunction
	case sectionMemory:
		each = m.readMemory
	case sectionExport:
		each = m.readExport
	default:
		return
	}
	for ; n > 0 && r.err == nil; n-- {
		each(r)
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail(errMalformed)
	}
}

func (m *module) readType(r *reader) {
	if form := r.byte(); form != 0x60 && r.err == nil {
		r.fail(fmt.Errorf("type %#x: only types of functions are known, not those of garbage collection", form))
		return
	}
	m.types = append(m.types, signature{params: r.valueTypes(), results: r.valueTypes()})
}

func (m *module) readImport(r *reader) {
	i := imported{module: r.name(), name: r.name(), kind: kind(r.byte())}
	switch i.kind {
	case kindFunction:
		i.function = m.typeAt(r)
		m.functions = append(m.functions, i.function)
	case kindTable:
		r.valueType()
		r.limits()
	case kindMemory:
		m.memories = append(m.memories, r.limits())
	case kindGlobal:
		r.valueType()
		r.byte()
	default:
		r.fail(fmt.Errorf("%w: an import of %s", errMalformed, i.kind))
	}
	m.imports = append(m.imports, i)
}

func (m *module) readFunction(r *reader) { m.functions = append(m.functions, m.typeAt(r)) }

func (m *module) readMemory(r *reader) { m.memories = append(m.memories, r.limits()) }

func (m *module) readExport(r *reader) {
	name := r.name()
	m.exports[name] = exported{kind: kind(r.byte()), index: r.uint32()}
}

// typeAt reads the number of a type.
func (m *module) typeAt(r *reader) signature {
	n := r.uint32()
	if int(n) < len(m.types) {
		return m.types[n]
	}
	r.fail(fmt.Errorf("%w: a function of type %d of %d", errMalformed, n, len(m.types)))
	return signature{}
}

// reader reads the binary format. After its first error it reads zeros and leaves nothing.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) bytes(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)) {
		r.fail(errTruncated)
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	b := r.bytes(1)
	if b == nil {
		return 0
	}
	return b[0]
}

// valueTypes reads a list of types, and returns it as it stands.
func (r *reader) valueTypes() string {
	n := r.uint32()
	begin := r.b
	for ; n > 0 && r.err == nil; n-- {
		r.valueType()
	}
	return string(begin[:len(begin)-len(r.b)])
}

// valueType reads the type of a value: a byte, or for a reference (ref, ref null) another number.
func (r *reader) valueType() {
	if b := r.byte(); b == 0x63 || b == 0x64 {
		r.uint64()
	}
}

func (r *reader) name() string { return string(bytes.ToValidUTF8(r.bytes(r.uint32()), []byte("?"))) }

func (r *reader) uint32() uint32 {
	n := r.uint64()
	if n > 1<<32-1 {
		r.fail(errMalformed)
		return 0
	}
	return uint32(n)
}

func (r *reader) uint64() uint64 {
	n, size := binary.Uvarint(r.b)
	switch {
	case size == 0:
		r.fail(errTruncated)
		return 0
	case size < 0:
		r.fail(errMalformed)
		return 0
	}
	r.b = r.b[size:]
	return n
}

// limits reads the least and, if it is there, the most of a table or memory.
func (r *reader) limits() memory {
	flags := r.byte()
	m := memory{min: r.uint64(), shared: flags&2 != 0, wide: flags&4 != 0}
	if flags&1 != 0 {
		r.uint64()
	}
	if flags > 7 {
		r.fail(fmt.Errorf("%w: limits of kind %#x", errMalformed, flags))
	}
	return m
}
