package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/vramjet/vramjet/providers"
	"github.com/vramjet/vramjet/schemas"
)

const root = "../.."

// page reads a file of the repository.
func page(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pages reads all documentation, by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{"README.md": page(t, "README.md")}
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("docs: %v, %d files", err, len(files))
	}
	for _, file := range files {
		name := "docs/" + filepath.Base(file)
		all[name] = page(t, name)
	}
	return all
}

// tableUnder returns the rows of the first table under a heading: their cells.
func tableUnder(t *testing.T, text, heading string) (rows [][]string) {
	t.Helper()
	_, text, ok := strings.Cut(text, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("there is no heading %q", heading)
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "|"):
			cells := strings.Split(strings.Trim(line, "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			rows = append(rows, cells)
		case len(rows) > 0 || strings.HasPrefix(line, "#"):
			return rows[min(2, len(rows)):] // without the head and the line below it
		}
	}
	return rows[min(2, len(rows)):]
}

var code = regexp.MustCompile("`([^`]+)`")

// codes returns what stands in backquotes; blocks are no part of that.
func codes(text string) (found []string) {
	for _, m := range code.FindAllStringSubmatch(strings.ReplaceAll(text, "```", ""), -1) {
		found = append(found, m[1])
	}
	return found
}

// sameSet reports what is in one list and not in the other.
func sameSet[T cmp.Ordered](t *testing.T, what string, documented, actual []T) {
	t.Helper()
	for _, d := range documented {
		if !slices.Contains(actual, d) {
			t.Errorf("%s: %v is documented and does not exist", what, d)
		}
	}
	for _, r := range actual {
		if !slices.Contains(documented, r) {
			t.Errorf("%s: %v is not documented", what, r)
		}
	}
}

// constants returns the string constants of a package: their values by name, and
// the values of each named type.
func constants(t *testing.T, pkg string) (byName map[string]string, byType map[string][]string) {
	t.Helper()
	byName, byType = map[string]string{}, map[string][]string{}
	files, err := filepath.Glob(filepath.Join(root, pkg, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Names) != len(spec.Values) {
				return true
			}
			for i, v := range spec.Values {
				lit, ok := v.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					continue
				}
				value, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				byName[spec.Names[i].Name] = value
				if typ, ok := spec.Type.(*ast.Ident); ok {
					byType[typ.Name] = append(byType[typ.Name], value)
				}
			}
			return true
		})
	}
	return byName, byType
}

// TestDocsHeaders: every header of the protocol is documented, and every header
// that a page names exists.
func TestDocsHeaders(t *testing.T) {
	names, _ := constants(t, "schemas")
	var headers []string
	for name, value := range names {
		if strings.HasPrefix(name, "Header") {
			headers = append(headers, value)
		}
	}
	protocol := codes(page(t, "docs/protocol.md"))
	for _, h := range headers {
		if !slices.Contains(protocol, h) {
			t.Errorf("docs/protocol.md does not name the header %s", h)
		}
	}
	for name, text := range pages(t) {
		for _, h := range regexp.MustCompile(`\bVj-[A-Z][A-Za-z-]*[a-z]`).FindAllString(text, -1) {
			if !slices.Contains(headers, h) {
				t.Errorf("%s: there is no header %s", name, h)
			}
		}
	}
}

// TestDocsSubjects: the same of subjects, and of streams.
func TestDocsSubjects(t *testing.T) {
	names, _ := constants(t, "schemas")
	var prefixes []string
	for name, value := range names {
		if strings.HasSuffix(name, "Prefix") && strings.HasPrefix(value, "vj.") || name == "NodesPing" {
			prefixes = append(prefixes, value)
		}
	}
	if len(prefixes) < 8 {
		t.Fatalf("only %d subjects were found: %v", len(prefixes), prefixes)
	}
	protocol := page(t, "docs/protocol.md")
	for _, p := range prefixes {
		if !strings.Contains(protocol, p) {
			t.Errorf("docs/protocol.md does not name the subject %s", p)
		}
	}
	streams := []string{schemas.BucketBodies}
	broker, _ := constants(t, "broker")
	for name, value := range broker {
		if strings.HasPrefix(value, "VJ_") && (strings.HasPrefix(name, "Stream") || strings.HasPrefix(name, "Bucket")) {
			streams = append(streams, value)
		}
	}
	var documented []string
	for name, text := range pages(t) {
		for _, s := range regexp.MustCompile(`vj\.v1\.[a-z]+[.a-z]*`).FindAllString(text, -1) {
			if !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) }) {
				t.Errorf("%s: there is no subject %s", name, s)
			}
		}
		documented = append(documented, regexp.MustCompile(`VJ_[A-Z]+`).FindAllString(text, -1)...)
	}
	sameSet(t, "streams", documented, streams)
}

// TestDocsErrors: the table of errors is that of the code.
func TestDocsErrors(t *testing.T) {
	_, types := constants(t, "schemas")
	actions := map[schemas.Action]string{
		schemas.Elsewhere: "elsewhere", schemas.Later: "later", schemas.Free: "free memory", schemas.Never: "never again",
	}
	blames := map[schemas.Blame]string{schemas.BlameBackend: "backend", schemas.BlameCaller: "caller", schemas.BlameNobody: "nobody"}
	var documented []string
	for _, row := range tableUnder(t, page(t, "docs/protocol.md"), "## Errors") {
		c := strings.Trim(row[0], "`")
		documented = append(documented, c)
		v := schemas.Code(c).Verdict()
		want := []string{actions[v.Action], blames[v.Blame], "`" + v.Type + "`"}
		if !slices.Equal(row[2:], want) {
			t.Errorf("%s: documented as %q, is %q", c, row[2:], want)
		}
	}
	sameSet(t, "codes", documented, types["Code"])
	protocol := codes(page(t, "docs/protocol.md"))
	for _, typ := range []string{"EventKind", "JobEventKind", "JobState", "Status", "Kind", "Class", "Abandon"} {
		if len(types[typ]) == 0 {
			t.Errorf("no %s was found", typ)
		}
		for _, value := range types[typ] {
			if !slices.Contains(protocol, value) {
				t.Errorf("docs/protocol.md does not name the %s %s", typ, value)
			}
		}
	}
	for _, row := range tableUnder(t, page(t, "docs/troubleshooting.md"), "## A job failed") {
		if c := strings.Trim(row[0], "`"); !slices.Contains(types["Code"], c) {
			t.Errorf("docs/troubleshooting.md: there is no code %s", c)
		}
	}
}

// TestDocsCauses: what backends check may find is documented.
func TestDocsCauses(t *testing.T) {
	_, types := constants(t, "cmd/vramjet")
	var documented []string
	for _, row := range tableUnder(t, page(t, "docs/troubleshooting.md"), "## A model server") {
		documented = append(documented, codes(row[0])...)
	}
	sameSet(t, "causes", documented, types["cause"])
}

// TestDocsChecks: what doctor checks is documented.
func TestDocsChecks(t *testing.T) {
	_, types := constants(t, "cmd/vramjet")
	var documented []string
	for _, row := range tableUnder(t, page(t, "docs/troubleshooting.md"), "## What doctor says") {
		documented = append(documented, codes(row[0])...)
	}
	sameSet(t, "checks", documented, types["check"])
}

// configKeys lists the keys below a type: backends[].name, tenants.<name>.weight.
func configKeys(typ reflect.Type, prefix string) (keys []string) {
	for f := range typ.Fields() {
		key, ft := prefix+f.Tag.Get("koanf"), f.Type
		switch {
		case ft.Kind() == reflect.Struct:
			keys = append(keys, configKeys(ft, key+".")...)
		case ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct:
			keys = append(append(keys, key), configKeys(ft.Elem(), key+"[].")...)
		case ft.Kind() == reflect.Map && ft.Elem().Kind() == reflect.Struct:
			keys = append(append(keys, key), configKeys(ft.Elem(), key+".<name>.")...)
		default:
			keys = append(keys, key)
		}
	}
	return keys
}

// TestDocsConfiguration: the table of keys is that of Config, with its types,
// defaults, environment variables and flags.
func TestDocsConfiguration(t *testing.T) {
	text := page(t, "docs/configuration.md")
	cfg, from, err := loadConfig("", func(string) string { return "" }, nil)
	if err != nil {
		t.Fatal(err)
	}
	defaultOf := map[string]string{}
	for _, v := range show(cfg, from) {
		if v.Key != "node" {
			defaultOf[v.Key] = v.Value
		}
	}
	env := envKeys(reflect.TypeFor[Config](), "")
	flags := map[string]bool{}
	commands := flagsOf(t)
	delete(commands, "simulate") // its --models are not those of the configuration
	for _, f := range slices.Concat(slices.Collect(maps.Values(commands))...) {
		flags[f] = true
	}
	var documented []string
	for _, row := range tableUnder(t, text, "## Keys") {
		key := strings.Trim(row[0], "`")
		documented = append(documented, key)
		if d := defaultOf[key]; d != "" && row[2] != "`"+d+"`" {
			t.Errorf("%s: the default is %s, not %s", key, d, row[2])
		}
		switch name := "`" + envName(key) + "`"; {
		case slices.Contains(env, key) && !strings.Contains(row[3], name):
			t.Errorf("%s: its environment variable is %s, not %s", key, name, row[3])
		case !slices.Contains(env, key) && row[3] != "":
			t.Errorf("%s: the environment cannot set it", key)
		}
		if f := flagName(key); strings.Trim(row[4], "`") != f && (row[4] != "" || flags[f] && !strings.Contains(key, "<") && !strings.Contains(key, "[]")) {
			t.Errorf("%s: its flag is %s, not %s", key, f, row[4])
		}
	}
	sameSet(t, "keys", documented, configKeys(reflect.TypeFor[Config](), ""))

	var kinds []string
	for _, row := range tableUnder(t, text, "## Backends") {
		kinds = append(kinds, codes(row[0])...)
	}
	sameSet(t, "kinds of backends", kinds, providers.Kinds())

	known := []string{"VRAMJET_CONFIG", "VRAMJET_SERVER", "VRAMJET_TENANT", "VRAMJET_IMAGE"} // the last: compose.yaml's
	for _, key := range env {
		known = append(known, envName(key))
	}
	for name, text := range pages(t) {
		for _, v := range regexp.MustCompile(`VRAMJET_[A-Z_]+`).FindAllString(text, -1) {
			if !slices.Contains(known, v) {
				t.Errorf("%s: there is no variable %s", name, v)
			}
		}
	}
}

// flagsOf lists the flags of each command; those of all are under "all".
func flagsOf(t *testing.T) map[string][]string {
	t.Helper()
	commands, err := kong.New(&cli{}, kong.NoDefaultHelp(), kong.ExplicitGroups([]kong.Group{{Key: globalGroup, Title: "Global flags:"}}))
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string][]string{}
	var walk func(n *kong.Node, path string)
	walk = func(n *kong.Node, path string) {
		var own []string
		for _, f := range n.Flags {
			own = append(own, "--"+f.Name)
		}
		if len(n.Children) == 0 || path == "all" {
			flags[path] = own
		}
		for _, child := range n.Children {
			walk(child, strings.TrimPrefix(strings.TrimPrefix(path+" "+child.Name, "all"), " "))
		}
	}
	walk(commands.Model.Node, "all")
	return flags
}

// examples returns what of a page is code: the blocks, and what stands in
// backquotes.
func examples(text string) string {
	var b strings.Builder
	for i, part := range strings.Split(text, "```") {
		if i%2 == 0 {
			part = "`" + strings.Join(codes(part), "\n`")
		}
		b.WriteString(part + "\n")
	}
	return b.String()
}

// others are flags of other programs that pages show.
var others = []string{
	"--last-for", "--name", "--signal", "--json", "--raw", "--force", "--force-stdin",
	"--add-host", "--profile", "--host", "--metrics", "--slots", "--no-models-autoload", "--enable-sleep-mode", "--enable-memory-saver", "--enable-weights-cpu-backup", "--enable-metrics",
	"--scheduling-policy", "--enable-priority-scheduling", "--schedule-low-priority-values-first", "--priority-scheduling-preemption-threshold",
}

// TestDocsFlags: the table of flags is that of the command line, and no page
// names a flag or a command that does not exist.
func TestDocsFlags(t *testing.T) {
	actual := flagsOf(t)
	documented := map[string][]string{}
	for _, row := range tableUnder(t, page(t, "docs/configuration.md"), "## Flags") {
		for command := range strings.SplitSeq(row[0], ", ") {
			documented[strings.Trim(command, "`")] = codes(row[1])
		}
	}
	var all, commands []string
	for command, flags := range actual {
		if _, ok := documented[command]; !ok {
			t.Errorf("the command %s is not documented", command)
		}
		sameSet(t, "flags of "+command, documented[command], flags)
		all = append(all, flags...)
		commands = append(commands, strings.Fields(command)[0])
	}
	for command := range documented {
		if _, ok := actual[command]; !ok {
			t.Errorf("there is no command %s", command)
		}
	}
	commands = append(commands, "help", "backends", "config", "dead", "jobs", "queue", "models", "nodes")
	for name, text := range pages(t) {
		for _, f := range regexp.MustCompile(`(?:^|[\s\x60(])(--[a-z][a-z-]*[a-z])`).FindAllStringSubmatch(text, -1) {
			if !slices.Contains(all, f[1]) && !slices.Contains(others, f[1]) {
				t.Errorf("%s: there is no flag %s", name, f[1])
			}
		}
		for _, c := range regexp.MustCompile("(?m)(?:`|\\$ |^)vramjet ([a-z]+)\\b").FindAllStringSubmatch(examples(text), -1) {
			if !slices.Contains(commands, c[1]) {
				t.Errorf("%s: there is no command vramjet %s", name, c[1])
			}
		}
	}
}

// TestDocsExitCodes: the table of exit codes is what vramjet --help says.
func TestDocsExitCodes(t *testing.T) {
	var says []string
	for _, row := range tableUnder(t, page(t, "docs/configuration.md"), "`vramjet <command> --help` says what each does.") {
		number, err := strconv.Atoi(row[0])
		if err != nil {
			t.Fatal(err)
		}
		says = append(says, strconv.Itoa(number))
	}
	var actual []string
	for part := range strings.SplitSeq(strings.TrimPrefix(description[strings.Index(description, "Exit codes: "):], "Exit codes: "), ";") {
		actual = append(actual, strings.Fields(part)[0])
	}
	sameSet(t, "exit codes", says, actual)
}

// TestDocsOutputs: what docs/operations.md shows of nodes, models, jobs and the queue
// is what the program prints.
func TestDocsOutputs(t *testing.T) {
	text := page(t, "docs/operations.md")
	show := page(t, "cmd/vramjet/testdata/nodes-show.out")
	show = show[strings.Index(show, "node gpu-1"):strings.Index(show, "\nnode gpu-2")]
	for command, printed := range map[string]string{
		"nodes": page(t, "cmd/vramjet/testdata/nodes-ls.out"), "nodes show gpu-1": show, "models": page(t, "cmd/vramjet/testdata/models.out"),
		"jobs ls": page(t, "cmd/vramjet/testdata/jobs-ls.out"), "queue": page(t, "cmd/vramjet/testdata/queue.out"),
		"doctor": page(t, "cmd/vramjet/testdata/doctor-ill.out"), "dead ls --by code": page(t, "cmd/vramjet/testdata/dead-tally.out"), "jobs retry report-6": page(t, "cmd/vramjet/testdata/jobs-retry.out"),
	} {
		if !strings.Contains(text, "\n$ vramjet "+command+"\n"+strings.TrimSpace(printed)+"\n") {
			t.Errorf("docs/operations.md does not show what vramjet %s prints", command)
		}
	}
}

// TestDocsState: every member of a node's state is documented.
func TestDocsState(t *testing.T) {
	rows := tableUnder(t, page(t, "docs/protocol.md"), "and is never 0.")
	for i, typ := range []reflect.Type{
		reflect.TypeFor[schemas.NodeState](), reflect.TypeFor[schemas.Device](), reflect.TypeFor[schemas.Backend](),
		reflect.TypeFor[schemas.Model](), reflect.TypeFor[schemas.RunningJob](), reflect.TypeFor[schemas.Reservation](),
	} {
		var actual []string
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			actual = append(actual, name)
		}
		documented := codes(rows[i][1])
		for _, name := range actual {
			if !slices.Contains(documented, name) {
				t.Errorf("docs/protocol.md: of %s, %s is not documented", typ, name)
			}
		}
	}
}

// TestDocsPackages: the table of packages is the one that the test of the arrows
// holds the imports to.
func TestDocsPackages(t *testing.T) {
	parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "integration", "arch_test.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var actual []string
	ast.Inspect(parsed, func(n ast.Node) bool {
		pair, ok := n.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		key, ok := pair.Key.(*ast.BasicLit)
		list, is := pair.Value.(*ast.CompositeLit)
		if !ok || !is {
			return true
		}
		var imports []string
		for _, e := range list.Elts {
			if lit, ok := e.(*ast.BasicLit); ok {
				imports = append(imports, strings.Trim(lit.Value, `"`))
			}
		}
		actual = append(actual, fmt.Sprint(strings.Trim(key.Value, `"`), " imports ", imports))
		return true
	})
	var documented []string
	for _, row := range tableUnder(t, page(t, "docs/architecture.md"), "## Packages") {
		documented = append(documented, fmt.Sprint(strings.Trim(row[0], "`"), " imports ", codes(row[2])))
	}
	sameSet(t, "packages", documented, actual)
}

// TestDocsLinks: the files and the tests that pages name are there.
func TestDocsLinks(t *testing.T) {
	tests := map[string]bool{}
	for _, pattern := range []string{"*/*_test.go", "*/*/*_test.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(text, -1) {
				tests[string(m[1])] = true
			}
		}
	}
	for name, text := range pages(t) {
		for _, link := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(name), link[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, file := range codes(text) {
			if !strings.HasSuffix(file, ".go") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, test := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(text, -1) {
			if !tests[test[1]] {
				t.Errorf("%s: there is no test %s", name, test[1])
			}
		}
	}
}
