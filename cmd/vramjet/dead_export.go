package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/vramjet/vramjet/client"
)

type deadExportCmd struct {
	File string `arg:"" optional:"" placeholder:"FILE" help:"Where to write; - is stdout (default: stdout)."`
	letterFlags
}

// Help is shown below the command's summary.
func (*deadExportCmd) Help() string {
	return `A JSON object on each line, the oldest letter first: seq, job, class, model, code, message, at, subject, headers and body. A body that is JSON stands as it is, any other as a string. The file must not exist.

Examples:

    vramjet dead export letters.jsonl
    vramjet dead export --code out_of_memory | jq -r .body.messages[0].content
`
}

// Run writes dead letters.
func (d *deadExportCmd) Run(ctx context.Context, a *app) error {
	f, err := d.letters(time.Now())
	if err != nil {
		return err
	}
	f.Bodies = true
	c, closeClient, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	if d.File == "" || d.File == "-" {
		_, err := export(ctx, a.out, c, f)
		return err
	}
	file, err := os.OpenFile(d.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	n, err := export(ctx, file, c, f)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	a.note("%s written to %s", count(n, "dead letter"), d.File)
	return nil
}

// export writes dead letters to out, a line at a time, and returns how many.
func export(ctx context.Context, out io.Writer, c *client.Client, f client.LetterFilter) (n int, err error) {
	buffered := bufio.NewWriter(out)
	enc := json.NewEncoder(buffered)
	enc.SetEscapeHTML(false)
	for l, err := range c.Letters(ctx, f) {
		if err == nil {
			err = enc.Encode(shownLetter(&l))
		}
		if err != nil {
			return n, errors.Join(err, buffered.Flush())
		}
		n++
	}
	return n, buffered.Flush()
}
