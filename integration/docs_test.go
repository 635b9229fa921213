package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// notRun are the commands of the documentation that TestDocs does not run, by the page
// ("": any) and how they begin, as a regular expression, and why: mostly, who runs them.
var notRun = []struct{ page, command, why string }{
	{"", "make test", "it is what runs this"},
	{"", "make image", "TestCompose: it builds one, and starts all of it"},
	{"", "docker compose", "TestCompose"},
	{"", "vramjet submit --tenant acme", "TestRolesWork: it has the users"},
	{"", "vramjet dispatcher --context", "TestRolesWork"},
	{"", "vramjet worker --node gpu-1 --context", "TestRolesWork"},
	{"", "vramjet models estimate", "TestModelsEstimate: a model that is at hand"},
	{"", "OTEL_EXPORTER_OTLP_ENDPOINT", "TestOneTrace: it has a collector"},
	{"README.md", "vramjet submit -m qwen2.5vl", "TestSubmitImages: no simulated model sees"},
	{"README.md", "vramjet batch run", "docs/batches.md has it, with the file"},
	{"README.md", "nats sub", "it never ends"},
	{"README.md", "nats-server", "docs/operations.md has it, with the file"},
	{"README.md", "vramjet dispatcher", "docs/operations.md"},
	{"README.md", "vramjet worker", "docs/operations.md"},
	{"README.md", "vramjet backends check", "TestBackendsCheck: nothing is wrong here"},
	{"docs/operations.md", "vramjet submit", "TestCompose: it is about the containers"},
	// what is printed of a fleet that no test has is compared with what prints it
	{"docs/operations.md", "vramjet doctor", "TestDocsOutputs"},
	{"docs/operations.md", "vramjet jobs ls", "TestDocsOutputs"},
	{"docs/operations.md", "vramjet queue", "TestDocsOutputs"},
	{"docs/operations.md", "vramjet nodes( show.*)?$", "TestDocsOutputs"},
	{"docs/operations.md", "vramjet models$", "TestDocsOutputs"},
	{"docs/operations.md", "vramjet dead ls", "TestDocsOutputs"},
	{"docs/operations.md", "vramjet jobs retry", "TestDocsOutputs"},
}

// TestDocs runs what the documentation says to type, page by page from top to bottom,
// and compares what is printed with what the page shows: but for numbers, times and
// names that differ from run to run, and for what stands for "…".
//
// A block of a page is typed if it is one of console, where commands follow a "$ ", or of
// sh, where each line is one and the page shows no output. Any other that has a name
// after its language is a file of that name. "&" and what has no end by itself go on until
// the page ends.
func TestDocs(t *testing.T) {
	t.Parallel()
	unused := map[string]bool{}
	for _, n := range notRun {
		unused[n.page+" "+n.command] = true
	}
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	for _, file := range append(pages, "../README.md") {
		name := strings.TrimPrefix(file, "../")
		blocks := readBlocks(t, file)
		typed := false
		for i := range blocks {
			var kept []typedCommand
			for _, c := range blocks[i].commands {
				if n := exempt(name, c.line); n >= 0 {
					delete(unused, notRun[n].page+" "+notRun[n].command)
					continue
				}
				kept = append(kept, c)
			}
			blocks[i].commands = kept
			typed = typed || len(kept) > 0
		}
		if typed {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				runPage(t, blocks)
			})
		}
	}
	for n := range unused {
		t.Errorf("notRun: no page has %s", n)
	}
}

// exempt returns which entry of notRun is of a command of a page, or -1.
func exempt(page, command string) int {
	for i, n := range notRun {
		if (n.page == "" || n.page == page) && regexp.MustCompile("^"+n.command).MatchString(command) {
			return i
		}
	}
	return -1
}

// A docBlock is a block of code of a page.
type docBlock struct {
	file, text string // what it is the file of, if any
	commands   []typedCommand
}

// A typedCommand is a command of a page.
type typedCommand struct {
	line    string
	at      string // where it stands
	prints  string
	compare bool // prints is all that it prints
}

var fence = regexp.MustCompile("^```(\\S*) ?(.*)$")

// readBlocks reads the blocks of a page.
func readBlocks(t *testing.T, file string) (blocks []docBlock) {
	t.Helper()
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	language, inside := "", false
	for i, line := range strings.Split(string(page), "\n") {
		if m := fence.FindStringSubmatch(line); m != nil {
			if inside = !inside; inside {
				language = m[1]
				blocks = append(blocks, docBlock{file: m[2]})
			}
			continue
		}
		if !inside {
			continue
		}
		b := &blocks[len(blocks)-1]
		command, console := strings.CutPrefix(line, "$ ")
		at := fmt.Sprintf("%s:%d", file, i+1)
		switch {
		case language == "console" && console:
			b.commands = append(b.commands, typedCommand{line: command, at: at, compare: true})
		case language == "console" && len(b.commands) > 0:
			b.commands[len(b.commands)-1].prints += line + "\n"
		case language == "sh":
			b.commands = append(b.commands, typedCommand{line: line, at: at})
		default:
			b.text += line + "\n"
		}
	}
	return blocks
}

// A terminal is where the commands of a page are typed.
type terminal struct {
	testing.TB
	dir       string
	env       []string
	elsewhere *strings.Replacer // the ports of the pages, which may be taken here
}

// runPage types the commands of a page.
func runPage(t *testing.T, blocks []docBlock) {
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var ports []string
	for _, port := range []string{"4222", "7433", "8222", "9000"} {
		free := strconv.Itoa(freePort(t))
		ports = append(ports, "127.0.0.1:"+port, "127.0.0.1:"+free, `"127.0.0.1", `+port, `"127.0.0.1", `+free)
	}
	term := &terminal{TB: t, dir: dir, elsewhere: strings.NewReplacer(append(ports, "10.0.0.1:4222", ports[1], "/var/lib/nats", filepath.Join(dir, "nats"))...)}
	server := "nats://" + ports[1]
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "MAKE") && !strings.HasPrefix(e, "MFLAGS=") { // of the make that runs the tests
			term.env = append(term.env, e)
		}
	}
	term.env = append(term.env, "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir,
		"VRAMJET_SERVER="+server, "NATS_URL="+server)
	for _, name := range []string{"GOMODCACHE", "GOCACHE", "GOPROXY", "GOFLAGS"} { // they follow HOME
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		term.env = append(term.env, name+"="+strings.TrimSpace(string(out)))
	}
	own := false // the page starts what it needs
	for _, b := range blocks {
		for _, c := range b.commands {
			own = own || strings.HasPrefix(c.line, "vramjet up") || strings.HasPrefix(c.line, "nats-server")
		}
	}
	if !own {
		term.typed(typedCommand{line: "vramjet up --sim", at: "the start", prints: "…\ntry …", compare: true})
	}
	for _, b := range blocks {
		if b.file != "" {
			if err := os.WriteFile(filepath.Join(dir, b.file), []byte(term.elsewhere.Replace(b.text)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range b.commands {
			term.typed(c)
		}
	}
}

// looks says which commands are typed when there is something to be seen: a page does not
// say how long its reader waited.
var looks = regexp.MustCompile(`^nats stream get\b`)

// stays says which commands do not end by themselves.
var stays = regexp.MustCompile(`^vramjet (up|dispatcher|worker)\b|&$`)

// typed types a command, and sees that it prints what the page shows.
func (term *terminal) typed(c typedCommand) {
	term.Helper()
	line := term.elsewhere.Replace(strings.TrimSuffix(c.line, " &"))
	cmd := exec.Command("bash", "-c", line)
	cmd.Dir, cmd.Env = term.dir, term.env
	switch program, _, _ := strings.Cut(line, " "); {
	case program == "make":
		cmd.Dir = ".."
	case strings.HasPrefix(line, "vramjet up"):
		cmd.Args[2] += term.elsewhere.Replace(" --nats 127.0.0.1:4222 --http 127.0.0.1:7433")
		cmd.Env = append(cmd.Env, "VRAMJET_NODE=vm")
	case strings.HasPrefix(line, "vramjet dispatcher"):
		cmd.Args[2] += term.elsewhere.Replace(" --http 127.0.0.1:7433")
	case program == "nats" || program == "curl" || program == "python3":
		if _, err := exec.LookPath(program); err != nil {
			term.Skipf("%s: %s is not installed", c.at, program)
		}
	case program == "cc":
		if exec.Command(program, "-E", "-include", "nats/nats.h", "-xc", "/dev/null").Run() != nil {
			term.Skipf("%s: cc with libnats is not installed", c.at)
		}
	case strings.HasPrefix(line, "go run"):
		term.module()
	}
	if looks.MatchString(line) {
		var out []byte
		for end := time.Now().Add(patience); !alike(c.prints, string(out)); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				term.Fatalf("%s: %s prints\n%s\nthe page shows\n%s", c.at, line, out, c.prints)
			}
			again := exec.Command("bash", "-c", line)
			again.Dir, again.Env = cmd.Dir, cmd.Env
			out, _ = again.CombinedOutput() // it fails where there is nothing yet
		}
		return
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var printed safeBuffer
	cmd.Stdout, cmd.Stderr = &printed, &printed
	if err := cmd.Start(); err != nil {
		term.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if stays.MatchString(c.line) {
		term.Cleanup(func() {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
			select {
			case <-ended:
			case <-time.After(patience):
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				term.Errorf("%s: %s does not end", c.at, line)
			}
		})
		for deadline := time.Now().Add(patience); !alike(c.prints, printed.String()); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				term.Fatalf("%s: %s prints\n%s\nthe page shows\n%s", c.at, line, printed.String(), c.prints)
			}
		}
		return
	}
	select {
	case err := <-ended:
		if failed := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &failed) || !c.compare) {
			term.Fatalf("%s: %s: %v\n%s", c.at, line, err, printed.String())
		}
	case <-time.After(5 * time.Minute): // some build a program first
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		term.Fatalf("%s: %s does not end\n%s", c.at, line, printed.String())
	}
	if c.compare && !alike(c.prints, printed.String()) {
		term.Fatalf("%s: %s prints\n%s\nthe page shows\n%s", c.at, line, printed.String(), c.prints)
	}
}

// module makes the directory one of a module that requires this one, as go get does.
func (term *terminal) module() {
	root, err := filepath.Abs("..")
	if err != nil {
		term.Fatal(err)
	}
	for _, file := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			term.Fatal(err)
		}
		if file == "go.mod" {
			text = bytes.Replace(text, []byte("module github.com/vramjet/vramjet"), []byte("module example.com/ask"), 1)
			text = fmt.Appendf(text, "\nrequire github.com/vramjet/vramjet v0.0.0\nreplace github.com/vramjet/vramjet => %s\n", root)
		}
		if err := os.WriteFile(filepath.Join(term.dir, file), text, 0o600); err != nil {
			term.Fatal(err)
		}
	}
}

// The parts of an output that differ from run to run, in the order in which they are
// looked for.
var differing = []struct {
	pattern *regexp.Regexp
	as      string
}{
	{regexp.MustCompile(`(^|[\s ])/[\w./-]+`), "${1}PATH"},
	{regexp.MustCompile(`\b(batch_|simcmpl-)\w+`), "${1}ID"},
	{regexp.MustCompile(`\b([A-Z0-9]{26}|[A-Za-z0-9]{22})\b`), "ID"}, // of jobs, and of dispatchers
	{regexp.MustCompile(`\b(\d+(\.\d+)?(ms|µs|h|m|s))+\b`), "TIME"},
	{regexp.MustCompile(`\d+(\.\d+)?`), "N"},
	{regexp.MustCompile(`\s+`), " "},
}

// anything is what a page leaves out.
var anything = regexp.MustCompile(` ?… ?`)

// alike reports whether a command printed what a page shows.
func alike(shown, printed string) bool {
	for _, d := range differing {
		shown, printed = d.pattern.ReplaceAllString(shown, d.as), d.pattern.ReplaceAllString(printed, d.as)
	}
	pattern := anything.ReplaceAllString(regexp.QuoteMeta(strings.TrimSpace(shown)), ".*")
	return regexp.MustCompile("(?s)^" + pattern + "$").MatchString(strings.TrimSpace(printed))
}

// TestAlike: an output that differs is noticed.
func TestAlike(t *testing.T) {
	for _, c := range []struct {
		shown, printed string
		want           bool
	}{
		{"job EUPVLH3Z7ALYVEISWPBWMVX2WO  node vm  queued 12ms", "job F655EEJNSMNELARAHMPHRI63Y7 node vm  queued 1.5s\n", true},
		{"NODE  FREE\nvm    22.8 GiB  3s ago", "NODE     FREE\nvm  1.0 GiB  1m20s ago\n", true},
		{"ok\n…\nend", "ok\nany\nnumber\nend\n", true},
		{"…\nend\n…", "end", true},
		{"a node vm", "a node gpu-1", false},
		{"ok", "ok\nand more", false},
		{"second  draining", "second  ready", false},
		{"12ms", "12 tokens", false},
		{"", "something", false},
	} {
		if got := alike(c.shown, c.printed); got != c.want {
			t.Errorf("%q and %q: %v", c.shown, c.printed, got)
		}
	}
}

// A safeBuffer can be read while it is written to.
type safeBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}
