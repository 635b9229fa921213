package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/vramjet/vramjet/schemas"
)

// A part is one part of a message's content in OpenAI's words.
type part struct {
	Type  string `json:"type"`
	Text  string `json:"text,omitempty"`
	Image *image `json:"image_url,omitempty"`
}

type image struct {
	URL string `json:"url"`
}

// maxImages is how large all images of a request may be: as text they are a third
// larger, and then they must fit into the largest body.
const maxImages = schemas.MaxBody/4*3 - schemas.MiB

// withImages returns the content of a message with a prompt and the images in files:
// without any, the prompt alone.
func withImages(prompt string, files []string) (any, error) {
	if len(files) == 0 {
		return prompt, nil
	}
	parts, room := []part{{Type: "text", Text: prompt}}, maxImages
	for _, file := range files {
		data, err := readImage(file, room)
		if err != nil {
			return nil, fmt.Errorf("--image %s: %w", file, err)
		}
		room -= schemas.Bytes(len(data))
		url := "data:" + http.DetectContentType(data) + ";base64," + base64.StdEncoding.EncodeToString(data)
		parts = append(parts, part{Type: "image_url", Image: &image{url}})
	}
	return parts, nil
}

// readImage reads a file that is an image and not larger than room.
func readImage(file string, room schemas.Bytes) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(room)+1))
	if err != nil {
		return nil, err
	}
	if schemas.Bytes(len(data)) > room {
		return nil, fmt.Errorf("too large: the images of a request may have %s together", maxImages)
	}
	if kind := http.DetectContentType(data); !strings.HasPrefix(kind, "image/") {
		return nil, fmt.Errorf("it is no image, but %s: png, jpeg, gif and webp are", kind)
	}
	return data, nil
}
