package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	osuser "os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/dispatch"
	"mayfly/internal/install"
	"mayfly/internal/ledger"
	"mayfly/internal/sandbox"
	"mayfly/internal/session"
)

// config is the operator's file. docs/mayfly.toml documents every key and holds the defaults.
type config struct {
	State       string        `toml:"state"`
	Core        string        `toml:"core"`
	Sandbox     string        `toml:"sandbox"`
	SandboxUser int           `toml:"sandbox_user"`
	Sessions    int           `toml:"sessions"`
	Relay       relayConfig   `toml:"relay"`
	Install     installConfig `toml:"install"`
	Bots        botsConfig    `toml:"bots"`
	Limits      limitsConfig  `toml:"limits"`
	Log         logConfig     `toml:"log"`
}

type relayConfig struct {
	IMAP               string   `toml:"imap"`
	IMAPSecurity       string   `toml:"imap_security"`
	SMTP               string   `toml:"smtp"`
	SMTPSecurity       string   `toml:"smtp_security"`
	MasterUser         string   `toml:"master_user"`
	MasterPasswordFile string   `toml:"master_password_file"`
	Accounts           []string `toml:"accounts"`
	WakeSocket         string   `toml:"wake_socket"`
	WakeGroup          string   `toml:"wake_group"`
	Poll               string   `toml:"poll"`
}

type installConfig struct {
	Who             string   `toml:"who"`
	Listed          []string `toml:"listed"`
	InstallsPerHour int      `toml:"installs_per_hour"`
	Bots            int      `toml:"bots"`
	Disk            string   `toml:"disk"`
}

type botsConfig struct {
	Memory       string   `toml:"memory"`
	Wall         string   `toml:"wall"`
	Folder       string   `toml:"folder"`
	Interpreters []string `toml:"interpreters"`
	FromBots     bool     `toml:"from_bots"`
	Landlock     string   `toml:"landlock"`
	ScheduleGap  string   `toml:"schedule_gap"`
}

type limitsConfig struct {
	Memory         string        `toml:"memory"`
	Cores          float64       `toml:"cores"`
	HostCPUPerHour string        `toml:"host_cpu_per_hour"`
	CPUPerHour     string        `toml:"cpu_per_hour"`
	CPUPerDay      string        `toml:"cpu_per_day"`
	MailsPerHour   int           `toml:"mails_per_hour"`
	BytesPerHour   string        `toml:"bytes_per_hour"`
	PerUser        perUserConfig `toml:"per_user"`
	Sending        sendingConfig `toml:"sending"`
}

type perUserConfig struct {
	MailsPerHour   int    `toml:"mails_per_hour"`
	MailsPerDay    int    `toml:"mails_per_day"`
	SecondsPerHour int    `toml:"seconds_per_hour"`
	BytesPerHour   string `toml:"bytes_per_hour"`
}

type sendingConfig struct {
	MailsPerHour           int    `toml:"mails_per_hour"`
	BytesPerHour           string `toml:"bytes_per_hour"`
	MailsPerHourAndContact int    `toml:"mails_per_hour_and_contact"`
	BytesPerHourAndContact string `toml:"bytes_per_hour_and_contact"`
	Attachment             string `toml:"attachment"`
}

type logConfig struct {
	Level  string `toml:"level"`
	Format string `toml:"format"`
}

func defaultConfig() config {
	return config{
		State:       "/var/lib/mayfly",
		Core:        "/usr/lib/mayfly/deltachat-rpc-server",
		Sandbox:     "/usr/lib/mayfly/mayfly-sandbox",
		SandboxUser: 64190,
		Sessions:    2,
		Relay: relayConfig{
			IMAP: "127.0.0.1:143", IMAPSecurity: "plain", SMTP: "127.0.0.1:587", SMTPSecurity: "plain",
			MasterUser: "mayfly", MasterPasswordFile: "/etc/mayfly/master-password", Accounts: []string{},
			Poll: "15m",
		},
		Install: installConfig{Who: install.Everyone, Listed: []string{}, InstallsPerHour: 60, Bots: 1000, Disk: "5GB"},
		Bots:    botsConfig{Memory: "128MB", Wall: "30s", Folder: "100MB", Interpreters: bundle.DefaultInterpreters(), Landlock: landlockIfThere, ScheduleGap: "1h"},
		Limits: limitsConfig{
			Memory: "2GB", HostCPUPerHour: "30m", CPUPerHour: "36s", CPUPerDay: "86.4s", MailsPerHour: 600, BytesPerHour: "500MB",
			PerUser: perUserConfig{MailsPerHour: 60, MailsPerDay: 120, SecondsPerHour: 60, BytesPerHour: "60MB"},
			Sending: sendingConfig{MailsPerHour: 2000, BytesPerHour: "300MB", MailsPerHourAndContact: 200, BytesPerHourAndContact: "60MB", Attachment: "20MB"},
		},
		Log: logConfig{Level: "info", Format: "text"},
	}
}

// readConfig reads the operator's file over the defaults and reports everything that is wrong with it at once.
func readConfig(path string) (config, error) {
	c := defaultConfig()
	text, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("configuration: %w: start from docs/mayfly.toml: %w", err, errUsage)
	}
	if err := decodeConfig(text, &c); err != nil {
		return c, fmt.Errorf("configuration %s: %w\n%w", path, err, errUsage)
	}
	if err := c.validate(); err != nil {
		return c, fmt.Errorf("configuration %s:\n%w\n%w", path, err, errUsage)
	}
	return c, nil
}

func decodeConfig(text []byte, c *config) error {
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(c)
	var strict *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case errors.As(err, &strict):
		return fmt.Errorf("unknown keys:\n%s", strict.String())
	case errors.As(err, &bad):
		line, column := bad.Position()
		return fmt.Errorf("%d:%d: %w", line, column, err)
	}
	return err
}

func (c config) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("  "+format, args...)) }
	for key, path := range map[string]string{"state": c.State, "core": c.Core, "sandbox": c.Sandbox} {
		if !filepath.IsAbs(path) {
			wrong("%s = %q: want an absolute path", key, path)
		}
	}
	if c.SandboxUser <= 0 {
		wrong("sandbox_user = %d: want a uid above 0: no namespace is ever made by root", c.SandboxUser)
	}
	if c.Sessions < 1 || c.Sessions > 64 {
		wrong("sessions = %d: want 1 to 64", c.Sessions)
	}
	for key, address := range map[string]string{"relay.imap": c.Relay.IMAP, "relay.smtp": c.Relay.SMTP} {
		if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
			wrong("%s = %q: want host:port", key, address)
		}
	}
	if d, err := time.ParseDuration(c.Relay.Poll); err != nil || d < time.Minute {
		wrong("relay.poll = %q: want a time of at least a minute, such as 15m", c.Relay.Poll)
	}
	if c.Relay.WakeSocket != "" && !filepath.IsAbs(c.Relay.WakeSocket) {
		wrong("relay.wake_socket = %q: want an absolute path", c.Relay.WakeSocket)
	}
	if c.Relay.MasterUser == "" || strings.ContainsAny(c.Relay.MasterUser, "*@ ") {
		wrong("relay.master_user = %q: want a name without *, @ and spaces", c.Relay.MasterUser)
	}
	for key, value := range map[string]string{"relay.imap_security": c.Relay.IMAPSecurity, "relay.smtp_security": c.Relay.SMTPSecurity} {
		if value != "plain" && value != "starttls" && value != "tls" {
			wrong("%s = %q: want plain (loopback only), starttls or tls", key, value)
		}
	}
	for _, account := range c.Relay.Accounts {
		if _, err := bot.ParseAddress(account); err != nil {
			wrong("relay.accounts: %w", err)
		}
	}
	if _, err := c.Install.rules(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.Bots.ceilings(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.Limits.limits(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.Log.level(); err != nil {
		wrong("log.level = %q: want debug, info, warn or error", c.Log.Level)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		wrong("log.format = %q: want text or json", c.Log.Format)
	}
	return errors.Join(errs...)
}

func (l logConfig) level() (level slog.Level, err error) {
	err = level.UnmarshalText([]byte(l.Level))
	return level, err
}

// rules are the operator's, read; the error has all that is wrong with them.
func (i installConfig) rules() (install.Rules, error) {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("  install."+format, args...)) }
	r := install.Rules{Who: i.Who, PerHour: i.InstallsPerHour, Bots: i.Bots}
	if !slices.Contains([]string{install.Everyone, install.Listed, install.Nobody}, i.Who) {
		wrong("who = %q: want everyone, listed or nobody", i.Who)
	}
	for _, entry := range i.Listed {
		listed, err := install.ParseListed(entry)
		if err != nil {
			wrong("listed: %w", err)
		}
		r.Listed = append(r.Listed, listed)
	}
	if i.InstallsPerHour < 0 || i.Bots < 0 {
		wrong("installs_per_hour = %d, install.bots = %d: want 0, which is no limit, or more", i.InstallsPerHour, i.Bots)
	}
	var err error
	if r.Disk, err = bundle.ParseSize(i.Disk); err != nil {
		wrong("disk = %q: %w", i.Disk, err)
	}
	return r, errors.Join(errs...)
}

// The values of bots.landlock.
const (
	landlockIfThere  = "if-there"
	landlockRequired = "required"
)

// interpreterPath is where the host's programs are looked for: what lies elsewhere is not in a sandbox.
const interpreterPath = "/usr/local/bin:/usr/bin"

// ceilings are what bundles may be and ask for on this host; the error has all that is wrong with the keys.
func (b botsConfig) ceilings() (bundle.Ceilings, error) {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("  bots."+format, args...)) }
	c := bundle.DefaultCeilings()
	var err error
	if c.Memory, err = bundle.ParseSize(b.Memory); err != nil || c.Memory < 32e6 || c.Memory > 1<<30 {
		wrong("memory = %q: want 32MB to 1GB", b.Memory)
	}
	if c.Wall, err = time.ParseDuration(b.Wall); err != nil || c.Wall < time.Second || c.Wall > time.Minute {
		wrong("wall = %q: want 1s to 1m", b.Wall)
	}
	if _, err := b.limits(); err != nil {
		wrong("folder = %q: want 0B to 500MB", b.Folder)
	}
	if c.ScheduleGap, err = time.ParseDuration(b.ScheduleGap); err != nil || c.ScheduleGap < time.Minute || c.ScheduleGap > 365*24*time.Hour {
		wrong("schedule_gap = %q: want 1m to 8760h", b.ScheduleGap)
	}
	if b.Landlock != landlockIfThere && b.Landlock != landlockRequired {
		wrong("landlock = %q: want %s or %s", b.Landlock, landlockIfThere, landlockRequired)
	}
	c.FromBots, c.Interpreters = b.FromBots, nil
	for _, name := range b.Interpreters {
		if name == "" || strings.ContainsAny(name, "/ \x00") {
			wrong("interpreters: %q: want the name of a program in %s", name, interpreterPath)
		} else if _, there := findInterpreter(name); there {
			c.Interpreters = append(c.Interpreters, name)
		}
	}
	return c, errors.Join(errs...)
}

// ceilings are what bundles may be, ask for and grant on this host.
func (c config) ceilings() (bundle.Ceilings, error) {
	ceilings, err := c.Bots.ceilings()
	limits, err2 := c.Limits.limits()
	ceilings.PerUser, ceilings.Sending = limits.PerUser, limits.Sending
	return ceilings, errors.Join(err, err2)
}

// limits are those of a session on this host.
func (b botsConfig) limits() (session.Limits, error) {
	l := session.DefaultLimits()
	folder, err := bundle.ParseSize(b.Folder)
	if err == nil && folder > 500e6 {
		err = errors.New("too large")
	}
	l.Folder = folder
	return l, err
}

// sandboxes is what the kernel lets all sandboxes together take. The memory is what dispatch lets them take, and a quarter more for what is
// freed late: it is the second wall. A session that may take more than limits.memory runs alone, and has room for that.
func (c config) sandboxes() (sandbox.Ceilings, error) {
	most := sandbox.Ceilings{Cores: c.Limits.Cores}
	memory, err := bundle.ParseSize(c.Limits.Memory)
	if err != nil || memory == 0 {
		return most, err
	}
	limits, err := c.Bots.limits()
	if err != nil {
		return most, err
	}
	ceilings, err := c.ceilings()
	if err != nil {
		return most, err
	}
	largest, err := session.New(session.Options{Limits: limits}).Memory(ledger.Bot{Manifest: bot.Manifest{
		Runtime: bot.RuntimeJS, Limits: bot.Limits{Memory: ceilings.Memory, Wall: ceilings.Wall},
	}})
	const more = 256 << 20 // that other programs than scripts and a large folder take
	most.Memory = max(memory, largest+limits.Folder+more) * 5 / 4
	return most, err
}

// limits are those of bots and their contacts; the error has all that is wrong with the keys.
func (l limitsConfig) limits() (dispatch.Limits, error) {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("  limits."+format, args...)) }
	duration := func(key, s string) time.Duration {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 || d > 0 && d < time.Second {
			wrong("%s = %q: want 0s, which is no limit, or at least 1s", key, s)
		}
		return d
	}
	size := func(key, s string) int64 {
		n, err := bundle.ParseSize(s)
		if err != nil {
			wrong("%s = %q: %w", key, s, err)
		}
		return n
	}
	size("memory", l.Memory)
	duration("host_cpu_per_hour", l.HostCPUPerHour)
	if l.Cores < 0 || l.Cores > 0 && l.Cores < 0.05 || l.Cores > 1024 || math.IsNaN(l.Cores) {
		wrong("cores = %v: want 0.0, which is no limit, or 0.05 to 1024", l.Cores)
	}
	u := l.PerUser
	if l.MailsPerHour < 0 || l.MailsPerHour > 1e6 {
		wrong("mails_per_hour = %d: want 0, which is no limit, to 1000000", l.MailsPerHour)
	}
	for key, n := range map[string]int{"mails_per_hour": u.MailsPerHour, "mails_per_day": u.MailsPerDay, "seconds_per_hour": u.SecondsPerHour} {
		if n < 1 || n > 1e6 {
			wrong("per_user.%s = %d: want 1 to 1000000", key, n)
		}
	}
	if n, err := bundle.ParseSize(u.BytesPerHour); err != nil || n < 1e6 {
		wrong("per_user.bytes_per_hour = %q: want at least 1MB", u.BytesPerHour)
	}
	return dispatch.Limits{
		CPUPerHour: duration("cpu_per_hour", l.CPUPerHour), CPUPerDay: duration("cpu_per_day", l.CPUPerDay),
		MailsPerHour: l.MailsPerHour, BytesPerHour: size("bytes_per_hour", l.BytesPerHour), Sending: l.Sending.sending(wrong),
		PerUser: bot.PerUser{
			MailsPerHour: u.MailsPerHour, MailsPerDay: u.MailsPerDay, SecondsPerHour: u.SecondsPerHour,
			BytesPerHour: size("per_user.bytes_per_hour", u.BytesPerHour),
		},
	}, errors.Join(errs...)
}

// sending is what bots may send on this host. wrong is told of what is wrong with the keys.
func (s sendingConfig) sending(wrong func(format string, args ...any)) bot.Sending {
	count := func(key string, n int) int {
		if n < 1 || n > 1e6 {
			wrong("sending.%s = %d: want 1 to 1000000", key, n)
		}
		return n
	}
	size := func(key, s, words string, least, most int64) int64 {
		n, err := bundle.ParseSize(s)
		if err != nil || n < least || n > most {
			wrong("sending.%s = %q: want %s", key, s, words)
		}
		return n
	}
	const any = 1 << 50
	return bot.Sending{
		Mails: count("mails_per_hour", s.MailsPerHour), Bytes: size("bytes_per_hour", s.BytesPerHour, "at least 1MB", 1e6, any),
		MailsPerContact: count("mails_per_hour_and_contact", s.MailsPerHourAndContact),
		BytesPerContact: size("bytes_per_hour_and_contact", s.BytesPerHourAndContact, "at least 1MB", 1e6, any),
		Attachment:      size("attachment", s.Attachment, "1kB to 25MB", 1e3, 25e6),
	}
}

// interpreters are the paths of those that this host has.
func (b botsConfig) interpreters() map[string]string {
	found := map[string]string{}
	for _, name := range b.Interpreters {
		if path, there := findInterpreter(name); there {
			found[name] = path
		}
	}
	return found
}

func findInterpreter(name string) (string, bool) {
	for _, dir := range filepath.SplitList(interpreterPath) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return path, true
		}
	}
	return "", false
}

// walls is what the sandbox has to hold beyond what it always has to.
func (b botsConfig) walls() sandbox.CheckOptions {
	return sandbox.CheckOptions{Landlock: b.Landlock == landlockRequired, Native: len(b.interpreters()) > 0}
}

// wakeGroup is the gid of wake_group, or -1.
func (r relayConfig) wakeGroup() (int, error) {
	if r.WakeGroup == "" {
		return -1, nil
	}
	group, err := osuser.LookupGroup(r.WakeGroup)
	if err != nil {
		return 0, fmt.Errorf("relay.wake_group: %w: name the group of Dovecot's mail processes, such as vmail", err)
	}
	return strconv.Atoi(group.Gid)
}

// masterPassword reads the secret that the operator gave Mayfly on the relay, "" where there is none.
func (r relayConfig) masterPassword() (string, error) {
	if r.MasterPasswordFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(r.MasterPasswordFile)
	if err != nil {
		return "", fmt.Errorf("relay.master_password_file: %w: write the password of the relay's master user into it, mode 0600", err)
	}
	password := strings.TrimSpace(string(text))
	if password == "" {
		return "", fmt.Errorf("relay.master_password_file: %s is empty", r.MasterPasswordFile)
	}
	return password, nil
}
