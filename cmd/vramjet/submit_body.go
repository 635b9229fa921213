package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/vramjet/vramjet/schemas"
)

// maxPrompt bounds what is read from stdin, in bytes.
const maxPrompt = int(schemas.MaxBody)

// chatRequest is a chat in OpenAI's words.
type chatRequest struct {
	Messages    []message `json:"messages"`
	Stream      bool      `json:"stream"`
	MaxTokens   int       `json:"max_tokens,omitempty"`
	Temperature *float64  `json:"temperature,omitempty"`
}

type message struct {
	Role    string `json:"role"`
	Content any    `json:"content"` // a text, or parts
}

// embedRequest asks for an embedding in OpenAI's words.
type embedRequest struct {
	Input string `json:"input"`
}

// prompt returns the prompt of the arguments, or of stdin.
func (s *submitCmd) prompt(stdin io.Reader) (string, error) {
	text := strings.Join(s.Prompt, " ")
	if text == "-" {
		data, err := io.ReadAll(io.LimitReader(stdin, int64(maxPrompt)+1))
		if err != nil {
			return "", fmt.Errorf("read the prompt: %w", err)
		}
		if len(data) > maxPrompt {
			return "", fmt.Errorf("the prompt on stdin is over %d MiB", maxPrompt>>20)
		}
		text = string(data)
	}
	if strings.TrimSpace(text) == "" {
		return "", errors.New(`there is no prompt: give it as an argument, or - to read it from stdin`)
	}
	return text, nil
}

// body returns the request for a prompt.
func (s *submitCmd) body(prompt string) (json.RawMessage, error) {
	if s.Embed {
		if len(s.Image) > 0 || s.System != "" || s.MaxTokens != 0 || s.Temperature != nil {
			return nil, errors.New("--embed goes with none of --image, --system, --max-tokens and --temperature")
		}
		return json.Marshal(embedRequest{Input: prompt})
	}
	if s.MaxTokens < 0 {
		return nil, errors.New("--max-tokens is negative")
	}
	req := chatRequest{Stream: true, MaxTokens: s.MaxTokens, Temperature: s.Temperature}
	if s.System != "" {
		req.Messages = append(req.Messages, message{"system", s.System})
	}
	content, err := withImages(prompt, s.Image)
	if err != nil {
		return nil, err
	}
	req.Messages = append(req.Messages, message{"user", content})
	return json.Marshal(req)
}

// readTime reads the time of a flag, or its duration from now. "" is the zero time.
func readTime(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		if d <= 0 {
			return time.Time{}, fmt.Errorf("%s %s is over already", flag, s)
		}
		return now.Add(d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s %q is neither a duration such as 5m nor a time such as 2026-01-02T15:04:05Z", flag, s)
	}
	return t, nil
}
