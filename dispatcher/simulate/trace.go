package simulate

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// maxLine is how many bytes a line of a trace may have.
const maxLine = 64 << 10

// ReadTrace reads a workload from CSV, and returns its jobs in the order of time, with
// At counted from the first.
//
// The first line names the columns. Needed are one of when a job came (timestamp, time
// or at), one of its prompt's tokens (prompt, prompt tokens, context tokens, input
// tokens or request tokens) and one of the tokens of its answer (generated, generated
// tokens, output tokens or response tokens). The columns model, tenant and class may be
// missing, and their values empty: then the job names no model (see Spread), is of
// schemas.DefaultTenant, and is schemas.Normal. Other columns don't matter. In the
// names, neither do case, spaces, '_' and '-'; around values, spaces don't.
//
// A time is as RFC 3339 has it, like "2006-01-02 15:04:05.9999999", which is UTC where
// no offset follows, or in seconds since any moment; lines may come in any order. The
// traces that Azure and BurstGPT published are read as they are.
//
// A line that isn't as it should be is an error, which says which line and what is
// wrong with it; and so is a trace without a job.
func ReadTrace(r io.Reader) ([]Job, error) {
	t, err := newTrace(r)
	if err != nil {
		return nil, err
	}
	var jobs []Job
	for {
		job, err := t.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, job)
	}
	if len(jobs) == 0 {
		return nil, errors.New("the trace is empty: below the names of its columns, there is no job")
	}
	sortByTime(jobs)
	first := jobs[0].At
	for i := range jobs {
		jobs[i].At -= first
	}
	return jobs, nil
}

// The columns that matter.
const (
	columnTime = iota
	columnPrompt
	columnGenerated
	columnModel
	columnTenant
	columnClass
	columns
)

// columnNames are what the columns are called, without what plainName takes away.
var columnNames = [columns][]string{
	columnTime:      {"timestamp", "time", "at"},
	columnPrompt:    {"prompttokens", "contexttokens", "prompt", "inputtokens", "requesttokens"},
	columnGenerated: {"generatedtokens", "generated", "outputtokens", "responsetokens"},
	columnModel:     {"model"},
	columnTenant:    {"tenant"},
	columnClass:     {"class"},
}

// needed are the columns that a trace can't do without.
var needed = []int{columnTime, columnPrompt, columnGenerated}

// plainName drops from a column's name what doesn't matter.
func plainName(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t_-", r) {
			return -1
		}
		return r
	}, strings.ToLower(name))
}

// A trace is what is left of one to read.
type trace struct {
	lines *limited
	csv   *csv.Reader
	at    [columns]int // where the columns are; -1: nowhere
	width int          // how many columns there are
	last  int          // the number of the line that was read last
	first *time.Time   // of the first job read
	flows map[schemas.Flow]schemas.Flow
}

// newTrace reads the names of the columns.
func newTrace(r io.Reader) (*trace, error) {
	text := bufio.NewReader(r)
	bom := []byte("\ufeff")
	if start, _ := text.Peek(len(bom)); bytes.Equal(start, bom) {
		_, _ = text.Discard(len(bom)) // it has been read
	}
	t := &trace{lines: &limited{text: text}, flows: map[schemas.Flow]schemas.Flow{}}
	t.csv = csv.NewReader(t.lines)
	t.csv.FieldsPerRecord = -1 // checked with a better error
	t.csv.ReuseRecord = true
	header, line, err := t.record()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the trace is empty: its first line has to name the columns")
	}
	if err != nil {
		return nil, err
	}
	t.width = len(header)
	return t, inLine(line, t.find(header))
}

// find sees where the columns are.
func (t *trace) find(header []string) error {
	for c, names := range columnNames {
		t.at[c] = -1
		for i, name := range header {
			if !slices.Contains(names, plainName(name)) {
				continue
			}
			if t.at[c] >= 0 {
				return fmt.Errorf("the columns %q and %q mean the same: leave one out", header[t.at[c]], name)
			}
			t.at[c] = i
		}
	}
	for _, c := range needed {
		if t.at[c] < 0 {
			return fmt.Errorf("no column is called %s", strings.Join(columnNames[c], ", "))
		}
	}
	return nil
}

// record returns the next line that isn't empty and its number, and io.EOF where there
// is none.
func (t *trace) record() (values []string, line int, err error) {
	t.lines.left = maxLine
	values, err = t.csv.Read()
	var bad *csv.ParseError
	switch {
	case err == nil:
		line, _ = t.csv.FieldPos(0)
		t.last = line
		return values, line, nil
	case errors.As(err, &bad):
		return nil, bad.Line, inLine(bad.Line, bad.Err)
	case errors.Is(err, errLong):
		return nil, 0, fmt.Errorf("after line %d: %w", t.last, err)
	default:
		return nil, 0, err
	}
}

// next reads a job, whose At counts from the first line. It returns io.EOF at the end.
func (t *trace) next() (Job, error) {
	values, line, err := t.record()
	if err != nil {
		return Job{}, err
	}
	job, err := t.job(values)
	return job, inLine(line, err)
}

// job makes a job of the values of a line.
func (t *trace) job(values []string) (job Job, err error) {
	if len(values) != t.width {
		return Job{}, fmt.Errorf("it has %d values, and there are %d columns", len(values), t.width)
	}
	if job.At, err = t.since(t.value(values, columnTime)); err != nil {
		return Job{}, err
	}
	if job.Prompt, err = parseTokens(t.value(values, columnPrompt)); err != nil {
		return Job{}, fmt.Errorf("the tokens of the prompt: %w", err)
	}
	if job.Generated, err = parseTokens(t.value(values, columnGenerated)); err != nil {
		return Job{}, fmt.Errorf("the generated tokens: %w", err)
	}
	flow, err := t.flow(values)
	job.Tenant, job.Class, job.Model = flow.Tenant, flow.Class, flow.Model
	return job, err
}

// value is what a line has in a column; "" where the trace lacks the column.
func (t *trace) value(values []string, column int) string {
	if t.at[column] < 0 {
		return ""
	}
	return strings.TrimSpace(values[t.at[column]])
}

// flow is the flow that a line's job belongs to. Its text is kept once for all jobs, as
// that of values is the whole line.
func (t *trace) flow(values []string) (schemas.Flow, error) {
	f := schemas.Flow{
		Tenant: cmp.Or(t.value(values, columnTenant), schemas.DefaultTenant),
		Class:  schemas.Class(cmp.Or(t.value(values, columnClass), string(schemas.Normal))),
		Model:  t.value(values, columnModel),
	}
	if known, ok := t.flows[f]; ok {
		return known, nil
	}
	if err := checkFlow(f); err != nil {
		return schemas.Flow{}, err
	}
	f = schemas.Flow{Tenant: strings.Clone(f.Tenant), Class: schemas.Class(strings.Clone(string(f.Class))), Model: strings.Clone(f.Model)}
	t.flows[f] = f
	return f, nil
}

// since is how long after the first line's job one came.
func (t *trace) since(text string) (time.Duration, error) {
	at, err := parseTime(text)
	if err != nil {
		return 0, err
	}
	if t.first == nil {
		t.first = &at
	}
	d := at.Sub(*t.first)
	if d > maxSpan || d < -maxSpan {
		return 0, fmt.Errorf("the time %q is over %d years away from that of the first job", text, maxSpan/(366*24*time.Hour))
	}
	return d, nil
}

// maxSeconds is the highest time that is given in seconds: in the year 2255. What is
// higher was meant to be milliseconds.
const maxSeconds = 9e9

// parseTime reads when a job came.
func parseTime(text string) (time.Time, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		if !(math.Abs(seconds) <= maxSeconds) { // NaN too
			return time.Time{}, fmt.Errorf("the time %q is out of range: want seconds", text)
		}
		whole, part := math.Modf(seconds)
		return time.Unix(int64(whole), int64(math.Round(part*1e9))), nil
	}
	for _, layout := range []string{time.DateTime, time.RFC3339, time.DateTime + "Z07:00"} { // they take fractions too
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("the time %q is none: want one like 2006-01-02T15:04:05Z or 2006-01-02 15:04:05.999, or seconds", text)
}

// parseTokens reads a number of tokens.
func parseTokens(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > maxTokens {
		return 0, fmt.Errorf("%q: want a whole number from 0 to %d", text, maxTokens)
	}
	return n, nil
}

// inLine says in which line an error is.
func inLine(line int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("line %d: %w", line, err)
}

// errLong is the error of a line that is too long.
var errLong = fmt.Errorf("a line of over %d bytes: is a quote never closed?", maxLine)

// A limited reader gives no more bytes than left, so that a line can't fill the memory.
type limited struct {
	text *bufio.Reader
	left int
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errLong
	}
	n, err := l.text.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}
