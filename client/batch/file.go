package batch

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/vramjet/vramjet/schemas"
)

// maxLine is the longest line of a batch, in bytes.
const maxLine = 8 << 20

// kinds are what the requests of each endpoint are.
var kinds = map[string]schemas.Kind{
	"/v1/chat/completions": schemas.Chat,
	"/v1/completions":      schemas.Completion,
	"/v1/embeddings":       schemas.Embedding,
}

// A request is one line of a batch.
type request struct {
	CustomID string          `json:"custom_id"`
	Method   string          `json:"method"`
	URL      string          `json:"url"`
	Body     json.RawMessage `json:"body"`

	line  int // from 1
	model string
}

// A File is a batch that was checked.
type File struct {
	Path   string
	SHA256 string         // in hex
	Lines  int            // the number of the last line
	Jobs   int            // requests; lines that are empty are none
	Models map[string]int // how many requests each has
}

// A Problem is what is wrong with a line of a batch.
type Problem struct {
	Line    int          `json:"line"` // 0: with the file as a whole
	Code    schemas.Code `json:"code"`
	Message string       `json:"message"`
}

// Error returns the line and the message.
func (p *Problem) Error() string {
	if p.Line == 0 {
		return p.Message
	}
	return fmt.Sprintf("line %d: %s", p.Line, p.Message)
}

// mostProblems is how many problems of a file are told: who has more has one mistake
// in a program, and not many in a file.
const mostProblems = 20

// Problems are what is wrong with a batch, by line.
type Problems struct {
	Path string
	List []Problem
	More int // that are not in the list
}

// Error returns all of them, a line each.
func (p *Problems) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is no batch, and nothing of it was submitted", p.Path)
	for i := range p.List {
		b.WriteString("\n  " + p.List[i].Error())
	}
	if p.More > 0 {
		fmt.Fprintf(&b, "\n  and %d more", p.More)
	}
	return b.String()
}

func (p *Problems) add(line int, format string, args ...any) {
	if len(p.List) == mostProblems {
		p.More++
		return
	}
	p.List = append(p.List, Problem{line, schemas.InvalidRequest, fmt.Sprintf(format, args...)})
}

// Check reads a whole batch. What is wrong with it is a *Problems. Its memory is 12
// bytes for a line, and a line.
func Check(path string) (*File, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the batch: %w", err)
	}
	defer in.Close()
	if st, err := in.Stat(); err == nil && !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file: a batch is read twice, and again when it is resumed", path)
	}
	f := &File{Path: path, Models: map[string]int{}}
	problems := &Problems{Path: path}
	hash := sha256.New()
	ids := newIDs()
	for l, err := range lines(io.TeeReader(in, hash)) {
		f.Lines = l.number
		if err != nil {
			problems.add(l.number, "%s", err)
			if !errors.Is(err, errLine) {
				return nil, fmt.Errorf("read the batch: %w", err)
			}
			continue
		}
		if len(l.text) == 0 {
			continue
		}
		r, err := l.request()
		if err != nil {
			problems.add(l.number, "%s", err)
			continue
		}
		f.Jobs++
		f.Models[r.model]++
		ids.add(r.CustomID, l.number)
	}
	if f.Jobs == 0 && len(problems.List) == 0 {
		problems.add(0, "it has no request in it")
	}
	if err := ids.twice(in, problems); err != nil {
		return nil, err
	}
	if len(problems.List) > 0 {
		slices.SortStableFunc(problems.List, func(a, b Problem) int { return a.Line - b.Line })
		return nil, problems
	}
	f.SHA256 = hex.EncodeToString(hash.Sum(nil))
	return f, nil
}

// A line is the text of one line, without what ends it. The text is good until the
// next one is read.
type line struct {
	number int // from 1
	text   []byte
	torn   bool // nothing ends it
}

// errLine is what is wrong with one line, after which more may follow.
var errLine = errors.New("the line")

func lineError(format string, args ...any) error {
	return &wrongLine{fmt.Sprintf(format, args...)}
}

type wrongLine struct{ text string }

func (e *wrongLine) Error() string { return e.text }
func (*wrongLine) Unwrap() error   { return errLine }

// lines reads lines, and stops after an error that is no line's.
func lines(in io.Reader) func(yield func(line, error) bool) {
	return func(yield func(line, error) bool) {
		r := bufio.NewReaderSize(in, 1<<16)
		var long []byte
		for n := 1; ; n++ {
			text, size, err := readLine(r, &long)
			switch {
			case errors.Is(err, io.EOF) && size == 0:
				return
			case err != nil && !errors.Is(err, io.EOF):
				yield(line{number: n}, err)
				return
			}
			l := line{number: n, text: text, torn: err != nil}
			var wrong error
			switch {
			case size > maxLine:
				wrong = lineError("it is %s long, and may have %s", schemas.Bytes(size), schemas.Bytes(maxLine))
			case n == 1 && bytes.HasPrefix(text, []byte("\xef\xbb\xbf")):
				wrong = lineError("the file begins with a byte order mark: save it as UTF-8 without one")
			case bytes.HasSuffix(text, []byte("\r")):
				wrong = lineError("it ends with CR LF, and is to end with LF: convert the file (dos2unix does it)")
			case !utf8.Valid(text):
				wrong = lineError("it is not UTF-8")
			}
			if !yield(l, wrong) {
				return
			}
		}
	}
}

// readLine reads a line and returns it without its LF, and how long it is; of one that
// is too long no more than there may be. The error is io.EOF where no LF ends it.
func readLine(r *bufio.Reader, long *[]byte) (text []byte, size int, err error) {
	*long = (*long)[:0]
	for {
		part, err := r.ReadSlice('\n')
		size += len(part)
		if errors.Is(err, bufio.ErrBufferFull) {
			if size <= maxLine {
				*long = append(*long, part...)
			}
			continue
		}
		if err == nil {
			part, size = part[:len(part)-1], size-1
		}
		if len(*long) == 0 {
			return part, size, err
		}
		if size <= maxLine {
			*long = append(*long, part...)
		}
		return *long, size, err
	}
}

// request reads the request of a line. Its body is a copy.
func (l *line) request() (*request, error) {
	r := &request{line: l.number}
	if err := json.Unmarshal(l.text, r); err != nil {
		var syntax *json.SyntaxError
		var wrong *json.UnmarshalTypeError
		switch {
		case l.torn && errors.As(err, &syntax):
			return nil, lineError("it is cut off, and the last: the file is not whole")
		case errors.As(err, &syntax):
			return nil, lineError("it is no JSON object: %s, at byte %d", err, syntax.Offset)
		case errors.As(err, &wrong) && wrong.Field != "":
			return nil, lineError("its %s is no text, but JSON's %s", wrong.Field, wrong.Value)
		default:
			return nil, lineError(`it is not {"custom_id": "…", "method": "POST", "url": "/v1/…", "body": {…}}`)
		}
	}
	return r, r.check()
}

// check returns all that is wrong with a request.
func (r *request) check() error {
	var wrong []string
	switch {
	case r.CustomID == "":
		wrong = append(wrong, "it has no custom_id")
	case !schemas.ValidCustomID(r.CustomID):
		wrong = append(wrong, "its custom_id is not 1 to 256 printable characters without space at its ends")
	}
	if r.Method != http.MethodPost {
		wrong = append(wrong, fmt.Sprintf("its method is %q, and must be POST", r.Method))
	}
	kind, ok := kinds[r.URL]
	if !ok {
		wrong = append(wrong, fmt.Sprintf("its url is %q, and must be one of /v1/chat/completions, /v1/completions and /v1/embeddings", r.URL))
	}
	if len(r.Body) == 0 || r.Body[0] != '{' {
		wrong = append(wrong, "its body is no JSON object")
	} else if ok {
		if err := r.checkBody(kind); err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return lineError("%s", strings.Join(wrong, "; "))
}

// checkBody checks the body as the dispatcher would.
func (r *request) checkBody(kind schemas.Kind) error {
	var body struct {
		Model  *string `json:"model"`
		Stream bool    `json:"stream"`
	}
	if err := json.Unmarshal(r.Body, &body); err != nil {
		return lineError("body: %s", err)
	}
	switch {
	case body.Model == nil || *body.Model == "":
		return lineError("body.model: it is missing")
	case body.Stream:
		return lineError("body.stream: a batch does not stream")
	}
	r.model = *body.Model
	flow := schemas.Flow{Tenant: schemas.DefaultTenant, Class: schemas.Batch, Model: r.model}
	if _, err := schemas.JobSubject(flow); err != nil {
		return lineError("body.model: %s", err)
	}
	header := func(key string) string {
		if key == schemas.HeaderKind {
			return string(kind)
		}
		return ""
	}
	if _, err := schemas.ReadJob(header, r.Body, flow, 1, nil); err != nil {
		return lineError("body: %s", schemas.AsError(err).Message)
	}
	return nil
}

// ids finds custom_ids that stand twice: it remembers a hash and the line of each.
type ids struct {
	seed maphash.Seed
	all  []idHash
}

type idHash struct {
	hash uint64
	line int32
}

func newIDs() *ids { return &ids{seed: maphash.MakeSeed()} }

func (s *ids) add(id string, line int) {
	s.all = append(s.all, idHash{maphash.String(s.seed, id), int32(line)}) //nolint:gosec // lines are at least 50 bytes
}

// twice adds the lines whose custom_id stands in one before. Where hashes are equal,
// the lines are read again: that nobody is told a falsehood.
func (s *ids) twice(in *os.File, problems *Problems) error {
	slices.SortFunc(s.all, func(a, b idHash) int {
		switch {
		case a.hash != b.hash && a.hash < b.hash:
			return -1
		case a.hash != b.hash:
			return 1
		default:
			return int(a.line - b.line)
		}
	})
	suspects := map[int]bool{}
	for i := 1; i < len(s.all) && len(suspects) < 4*mostProblems; i++ {
		if s.all[i].hash == s.all[i-1].hash {
			suspects[int(s.all[i-1].line)], suspects[int(s.all[i].line)] = true, true
		}
	}
	if len(suspects) == 0 {
		return nil
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read the batch again: %w", err)
	}
	first := map[string]int{}
	for l, err := range lines(in) {
		if !suspects[l.number] {
			continue
		}
		r, bad := l.request()
		if err != nil || bad != nil {
			return fmt.Errorf("the batch changed while it was read: %w", errors.Join(err, bad))
		}
		if at, ok := first[r.CustomID]; ok {
			problems.add(l.number, "its custom_id %q stands in line %d already", r.CustomID, at)
		} else {
			first[r.CustomID] = l.number
		}
	}
	return nil
}
