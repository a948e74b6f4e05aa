package bundle

import (
	"fmt"
	"net/mail"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"mayfly/internal/bot"
)

const (
	maxName        = 80  // characters
	maxSummary     = 500 // characters
	maxVersion     = 40  // characters
	maxDescription = 200 // characters
	maxContact     = 2000
	maxCommands    = 100
	contactFix     = `contact = "you@example.org", or your invite link from Delta Chat`
)

var (
	commandPattern = regexp.MustCompile(`^[a-z0-9_]{1,32}$`)
	// A fingerprint, and whatever else an invite link carries.
	invitePattern = regexp.MustCompile(`^https://i\.delta\.chat/#[0-9A-Fa-f]{40,64}(&|$)`)
)

// parseManifest checks bot.toml; file returns a file of the bundle, and whether it holds that.
func parseManifest(data []byte, file func(path string) ([]byte, bool), c Ceilings) (bot.Manifest, Problems) {
	has := func(path string) bool {
		_, ok := file(path)
		return ok
	}
	doc, root := parseTOML(data)
	if root == nil {
		return bot.Manifest{}, doc.problems
	}
	var m bot.Manifest
	m.Name = root.text("name", `name = "Dice"`, maxName, true)
	m.Summary = root.text("summary", `summary = "what the bot does"`, maxSummary, false)
	m.Version = root.version()
	m.License = root.text("license", `license = "MIT"`, maxName, false)
	m.SourceCodeURL = root.sourceCodeURL()
	m.Contact = root.contact()
	m.Icon = root.icon(file)
	m.Runtime = root.runtime()
	m.Main = root.main(m.Runtime, has)
	m.Command = root.command(m.Runtime, has, c)
	m.Mode = root.mode(m.Runtime)
	m.Resident = root.resident(m.Mode)
	m.AtOnce = root.atOnce(m.Runtime, m.Mode)
	m.Limits, m.PerUser, m.Sending = root.limits(c)
	m.GroupPrivacy = root.groupPrivacy()
	m.FromBots = root.fromBots()
	m.Commands = root.commands()
	m.Schedules = root.schedules(c.ScheduleGap)
	root.notYet()
	root.close()
	return m, doc.problems
}

// text reads a line of text of at most max characters.
func (t *table) text(key, fix string, max int, required bool) string {
	read := t.str
	if required {
		read = t.required
	}
	v, ok := read(key, fix)
	switch {
	case !ok:
		return ""
	case utf8.RuneCountInString(v) > max:
		t.fault(key, fmt.Sprintf("%q is longer than %d characters", key, max), "shorten it")
	case strings.ContainsFunc(v, unicode.IsControl):
		t.fault(key, fmt.Sprintf("%q has line breaks or control characters", key), "write it on one line")
	}
	return strings.TrimSpace(v)
}

func (t *table) version() string {
	v := t.text("version", `version = "1.0.0"`, maxVersion, true)
	if strings.ContainsFunc(v, unicode.IsSpace) {
		t.fault("version", `"version" has spaces`, `write version = "1.0.0"`)
	}
	return v
}

func (t *table) sourceCodeURL() string {
	const fix = `source_code_url = "https://…"`
	v := t.text("source_code_url", fix, maxContact, false)
	u, err := url.Parse(v)
	if v != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
		t.fault("source_code_url", `"source_code_url" is not a web address`, "write "+fix)
	}
	return v
}

func (t *table) contact() string {
	v := t.text("contact", contactFix, maxContact, true)
	if v != "" && !usableContact(v) {
		t.fault("contact", fmt.Sprintf("nobody can be reached at %q", printable(v)), "write "+contactFix)
	}
	return v
}

// usableContact accepts what a user or operator can click on or write to.
func usableContact(v string) bool {
	if invitePattern.MatchString(v) {
		return true
	}
	address, _, _ := strings.Cut(strings.TrimPrefix(v, "mailto:"), "?")
	parsed, err := mail.ParseAddress(address)
	return err == nil && parsed.Name == "" && parsed.Address == address
}

func (t *table) runtime() bot.Runtime {
	v, ok := t.required("runtime", `runtime = "js"`)
	r := bot.Runtime(v)
	if ok && r != bot.RuntimeJS && r != bot.RuntimeWASM && r != bot.RuntimeNative {
		t.fault("runtime", fmt.Sprintf("runtime %q is unknown", printable(v)), `write runtime = "js", "wasm" or "native"`)
	}
	return r
}

// main is the script or module. A native bot has a command instead.
func (t *table) main(r bot.Runtime, has func(string) bool) string {
	if r == bot.RuntimeNative {
		if t.has("main") {
			t.fault("main", `a native bot has no "main"`, `write command = ["python3", "bot.py"]`)
		}
		return ""
	}
	fix, ends := `main = "main.js"`, []string{".js", ".mjs"}
	if r == bot.RuntimeWASM {
		fix, ends = `main = "main.wasm"`, []string{".wasm"}
	}
	v, ok := t.required("main", fix)
	switch {
	case !ok:
	case r != bot.RuntimeJS && r != bot.RuntimeWASM: // that is said already
	case !slices.Contains(ends, path.Ext(v)):
		t.fault("main", fmt.Sprintf("main %q is not a %s file", printable(v), strings.Join(ends, " or ")), "write "+fix)
	case !has(v):
		t.fault("main", fmt.Sprintf("main %q is not in the bundle", printable(v)), "add the file, or correct its path")
	}
	return v
}

// maxCommand bounds the words of a command together, in bytes.
const maxCommand = 4000

// command is that of a native bot: an interpreter that the operator allows, or a file of the bundle, and arguments.
func (t *table) command(r bot.Runtime, has func(string) bool, c Ceilings) []string {
	const fix = `command = ["python3", "bot.py"]`
	there := t.has("command")
	if r != bot.RuntimeNative {
		if there {
			t.fault("command", `"command" is for native bots only`, `write runtime = "native", or remove it`)
		}
		return nil
	}
	words := t.strs("command", fix)
	switch {
	case !there:
		t.fault("command", `"command" is missing`, "write "+fix)
		return nil
	case len(words) == 0 || words[0] == "":
		t.fault("command", `"command" is empty`, "write "+fix)
		return nil
	case len(strings.Join(words, "")) > maxCommand || strings.ContainsRune(strings.Join(words, ""), 0):
		t.fault("command", fmt.Sprintf("\"command\" is longer than %d bytes or has a NUL", maxCommand), "write what is longer into a script")
		return nil
	}
	if !strings.Contains(words[0], "/") && !has(words[0]) {
		t.interpreter(words[0], c)
		return words
	}
	if file := path.Clean(words[0]); strings.HasPrefix(words[0], "/") || !has(file) {
		t.fault("command", fmt.Sprintf("%q is not in the bundle", printable(words[0])), "name an interpreter without a path, or a file of the bundle: "+fix)
	}
	return words
}

func (t *table) interpreter(name string, c Ceilings) {
	if slices.Contains(c.Interpreters, name) {
		return
	}
	if len(c.Interpreters) == 0 {
		t.fault("command", "the operator allows no native bots", `write the bot in JavaScript: runtime = "js"`)
		return
	}
	t.fault("command", fmt.Sprintf("%q is neither in the bundle nor one of this host's interpreters", printable(name)),
		"choose one of "+strings.Join(c.Interpreters, ", "))
}

// mode says how a program that is no script is spoken to.
func (t *table) mode(r bot.Runtime) bot.Mode {
	v, ok := t.str("mode", `mode = "pipe"`)
	switch {
	case r == bot.RuntimeJS:
		if ok {
			t.fault("mode", `"mode" is not for scripts, which have handlers`, "remove it")
		}
		return ""
	case !ok || v == string(bot.ModePipe):
	case v == string(bot.ModeResident) || v == string(bot.ModeMail):
		if r == bot.RuntimeNative {
			return bot.Mode(v)
		}
		t.fault("mode", fmt.Sprintf("mode %q is for native bots only", v), `write mode = "pipe"`)
	default:
		t.fault("mode", fmt.Sprintf("mode %q is unknown", printable(v)), `write mode = "pipe"`)
	}
	return bot.ModePipe
}

// What "replies" may be.
const (
	together = "together"
	atOnce   = "at once"
)

// atOnce reports whether each message is sent as soon as the bot has said it.
func (t *table) atOnce(r bot.Runtime, m bot.Mode) bool {
	v, ok := t.str("replies", fmt.Sprintf("replies = %q", atOnce))
	switch {
	case !ok || v == together:
		return false
	case v != atOnce:
		t.fault("replies", fmt.Sprintf("replies %q is unknown", printable(v)), fmt.Sprintf("write replies = %q, the default, or replies = %q", together, atOnce))
	case r != bot.RuntimeJS && m == bot.ModePipe:
		t.fault("replies", fmt.Sprintf("a program in mode %q replies with what it has printed when it has ended", m), fmt.Sprintf("remove it, or use runtime = %q", bot.RuntimeJS))
	}
	return v == atOnce
}

// The bounds of [resident] grace.
const (
	defaultGrace = 300 * time.Millisecond
	minGrace     = 50 * time.Millisecond
	maxGrace     = 10 * time.Second
)

func (t *table) resident(m bot.Mode) bot.Resident {
	r := bot.Resident{Grace: defaultGrace}
	table := t.sub("resident")
	daemon := m == bot.ModeResident || m == bot.ModeMail
	if table == nil && daemon {
		return r
	}
	if table == nil {
		return bot.Resident{}
	}
	if table.has("grace") {
		r.Grace = table.duration("grace", maxGrace)
	}
	if r.Grace > 0 && r.Grace < minGrace {
		table.fault("grace", fmt.Sprintf("grace is below %s, in which no program is noticed to work", minGrace), `write grace = "300ms"`)
	}
	table.close()
	if !daemon {
		t.fault("resident", `[resident] is for bots with mode = "resident" or "mail"`, "remove it")
	}
	return r
}

// What a run needs at least.
const (
	minMemory = 32e6
	minWall   = time.Second
)

func (t *table) limits(c Ceilings) (bot.Limits, bot.PerUser, bot.Sending) {
	limits, perUser, sending := bot.Limits{Memory: c.Memory, Wall: c.Wall}, c.PerUser, c.Sending
	table := t.sub("limits")
	if table == nil {
		return limits, perUser, sending
	}
	limits.Memory = table.size("memory", c.Memory)
	if limits.Memory > 0 && limits.Memory < minMemory {
		table.fault("memory", fmt.Sprintf("memory is below %s, in which no script starts", FormatSize(minMemory)), `write memory = "64MB"`)
	}
	limits.Wall = table.duration("wall", c.Wall)
	if limits.Wall > 0 && limits.Wall < minWall {
		table.fault("wall", fmt.Sprintf("wall is below %s, in which no script starts on a busy host", minWall), `write wall = "10s"`)
	}
	if user := table.sub("per_user"); user != nil {
		perUser.MailsPerHour = user.count("mails_per_hour", c.PerUser.MailsPerHour)
		perUser.MailsPerDay = user.count("mails_per_day", c.PerUser.MailsPerDay)
		perUser.SecondsPerHour = user.count("seconds_per_hour", c.PerUser.SecondsPerHour)
		perUser.BytesPerHour = user.size("bytes_per_hour", c.PerUser.BytesPerHour)
		perUser.Drop = user.drop()
		perUser.Notice = user.text("notice", `notice = "Enough for now: {limit}. Go on after {until}."`, maxDescription, false)
		user.close()
	}
	if send := table.sub("sending"); send != nil {
		sending = bot.Sending{
			Mails: send.count("mails_per_hour", c.Sending.Mails), Bytes: send.size("bytes_per_hour", c.Sending.Bytes),
			MailsPerContact: send.count("mails_per_hour_and_contact", c.Sending.MailsPerContact),
			BytesPerContact: send.size("bytes_per_hour_and_contact", c.Sending.BytesPerContact),
			Attachment:      send.size("attachment", c.Sending.Attachment),
		}
		send.close()
	}
	table.close()
	return limits, perUser, sending
}

// drop reports whether mail over a limit is dropped.
func (t *table) drop() bool {
	v, ok := t.str("over", `over = "defer"`)
	if ok && v != "defer" && v != "drop" {
		t.fault("over", fmt.Sprintf("over %q is unknown", printable(v)), `write over = "defer", the default, or over = "drop"`)
	}
	return v == "drop"
}

func (t *table) groupPrivacy() bool {
	groups := t.sub("groups")
	if groups == nil {
		return true
	}
	privacy, ok := get[bool](groups, "privacy", "true or false", "privacy = true")
	groups.close()
	return privacy || !ok
}

// fromBots does not ask the Ceilings: Withheld does.
func (t *table) fromBots() bool {
	messages := t.sub("messages")
	if messages == nil {
		return false
	}
	v, _ := get[bool](messages, "from_bots", "true or false", "from_bots = true")
	messages.close()
	return v
}

func (t *table) commands() []bot.Command {
	tables := t.subs("commands")
	if len(tables) > maxCommands {
		t.fault("commands", fmt.Sprintf("more than %d commands", maxCommands), "leave some out")
		return nil
	}
	var commands []bot.Command
	for _, entry := range tables {
		name := entry.commandName()
		if slices.ContainsFunc(commands, func(c bot.Command) bool { return name != "" && c.Name == name }) {
			entry.fault("name", fmt.Sprintf("command %q is there twice", name), "keep one of them")
		}
		commands = append(commands, bot.Command{
			Name:        name,
			Description: entry.text("description", `description = "what it does"`, maxDescription, false),
		})
		entry.close()
	}
	return commands
}

func (t *table) commandName() string {
	v, ok := t.required("name", `name = "roll"`)
	bare := strings.TrimPrefix(v, "/")
	switch {
	case !ok:
	case bare != v && commandPattern.MatchString(bare):
		t.fault("name", fmt.Sprintf("command %q begins with a slash", v), fmt.Sprintf("write name = %q", bare))
	case !commandPattern.MatchString(v):
		t.fault("name", fmt.Sprintf("command %q is not made of at most 32 of a-z, 0-9 and _", printable(v)), `write name = "roll"`)
	case slices.Contains([]string{"stop", "about", "usage"}, v):
		t.fault("name", fmt.Sprintf("command %q is answered by the host, not by the bot", v), "choose another name")
	}
	return v
}

// notYet reads what later versions of this host will do: the types are checked, and then each is refused, so that nothing
// that an author asked for is silently ignored.
func (t *table) notYet() {
	if t.has("network") {
		if network := t.sub("network"); network != nil {
			network.strs("origins", `origins = ["https://api.example.org"]`)
			network.close()
		}
		t.notSupported("network", "[network]", "remove it")
	}
}

func (t *table) notSupported(key, what, fix string) {
	t.fault(key, what+" is not supported yet by this host", fix)
}

// homeOf names the table that a key belongs to, for those who wrote it elsewhere; "" for keys of the root or of none.
func homeOf(key string) string {
	switch key {
	case "memory", "wall":
		return "limits"
	case "mails_per_hour", "mails_per_day", "seconds_per_hour", "bytes_per_hour", "over", "notice":
		return "limits.per_user"
	case "mails_per_hour_and_contact", "bytes_per_hour_and_contact", "attachment":
		return "limits.sending"
	case "privacy":
		return "groups"
	case "from_bots":
		return "messages"
	case "grace":
		return "resident"
	case "origins":
		return "network"
	case "cron":
		return "schedule"
	}
	return ""
}

func isRootKey(key string) bool {
	return slices.Contains(strings.Fields("name summary version license source_code_url contact icon runtime main command mode replies"), key)
}
