package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/vramjet/vramjet/schemas"
)

// The beginnings of files, by which they are told.
const (
	png  = "\x89PNG\x0d\x0a\x1a\x0a"
	jpeg = "\xff\xd8\xff\xe0"
	webp = "RIFF\x00\x00\x00\x00WEBPVP8 "
)

// picture writes a file of so many bytes.
func picture(t *testing.T, name, head string, size int) {
	t.Helper()
	if err := os.WriteFile(name, append([]byte(head), make([]byte, size)...), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSubmitImages(t *testing.T) {
	s := newSite(t)
	jobs := make(chan *schemas.Job, 1)
	s.serve(t, func(j *played) { jobs <- j.job; j.ok("a cat") })
	picture(t, "a.png", png, 0)
	picture(t, "b,c.jpg", jpeg, 0)
	if stdout, _ := s.want(t, exitOK, "submit", "-m", "m", "--image", "a.png", "--image", "b,c.jpg", "What is it?"); stdout != "a cat\n" {
		t.Errorf("stdout is %q", stdout)
	}
	want := `{"messages":[{"role":"user","content":[{"type":"text","text":"What is it?"},` +
		`{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}},` +
		`{"type":"image_url","image_url":{"url":"data:image/jpeg;base64,/9j/4A=="}}]}],"stream":true}`
	if got := string((<-jobs).Body); got != want {
		t.Errorf("the body is %s, want %s", got, want)
	}
}

// An image that is too large for a message is an object of the bucket, byte by byte.
func TestSubmitLargeImage(t *testing.T) {
	s := newSite(t)
	jobs := make(chan *schemas.Job, 1)
	s.serve(t, func(j *played) { jobs <- j.job; j.ok("a cat") })
	size := int(s.nc.MaxPayload())
	picture(t, "large.webp", webp, size)
	s.want(t, exitOK, "submit", "-m", "m", "--image", "large.webp", "What is it?")
	job := <-jobs
	bucket, err := s.js.ObjectStore(s.ctx, schemas.BucketBodies)
	if err != nil {
		t.Fatal(err)
	}
	body, err := bucket.GetBytes(s.ctx, job.Object)
	if err != nil || job.Kind != schemas.Chat || job.ReadBody(body) != nil || !job.Stream {
		t.Fatalf("the job %+v has a body of %d bytes, %v", job, len(body), err)
	}
	var chat struct {
		Messages []struct{ Content []part }
	}
	if err := json.Unmarshal(body, &chat); err != nil || len(chat.Messages) != 1 || len(chat.Messages[0].Content) != 2 {
		t.Fatalf("the body is %.200s, %v", body, err)
	}
	data, ok := strings.CutPrefix(chat.Messages[0].Content[1].Image.URL, "data:image/webp;base64,")
	image, err := base64.StdEncoding.DecodeString(data)
	if !ok || err != nil || !bytes.Equal(image, append([]byte(webp), make([]byte, size)...)) {
		t.Errorf("the image is not what it was: %d bytes, %v", len(image), err)
	}
}

func TestSubmitRefusesImages(t *testing.T) {
	s := newShell(t)
	picture(t, "a.png", png, 0)
	picture(t, "text.png", "hello", 0)
	picture(t, "empty.png", "", 0)
	picture(t, "half.png", png, int(maxImages/2))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--image", "none.png", "hi"}, "--image none.png: open none.png: no such file"},
		{[]string{"--image", "text.png", "hi"}, "--image text.png: it is no image, but text/plain; charset=utf-8: png, jpeg, gif and webp are"},
		{[]string{"--image", "empty.png", "hi"}, "it is no image"},
		{[]string{"--image", ".", "hi"}, "is a directory"},
		{[]string{"--image", "half.png", "--image", "half.png", "hi"}, "--image half.png: too large: the images of a request may have 47.0 MiB together"},
		{[]string{"--image", "a.png", "--embed", "hi"}, "--embed goes with none of --image"},
		{[]string{"--image", "a.png"}, "there is no prompt"},
	} {
		if _, stderr := s.want(t, exitUsage, append([]string{"submit", "-m", "m"}, c.args...)...); !strings.Contains(stderr, c.want) {
			t.Errorf("%v: %q is not in %q", c.args, c.want, stderr)
		}
	}
}
