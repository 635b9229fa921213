package providers

import (
	"bytes"
	"strings"

	"golang.org/x/net/html"
)

// pageText returns the words of a page of HTML, as proxies and web servers answer with
// instead of an error; false if body is none.
func pageText(body []byte) (string, bool) {
	start := bytes.ToLower(body[:min(len(body), 15)])
	if !bytes.HasPrefix(start, []byte("<!doctype html")) && !bytes.HasPrefix(start, []byte("<html")) {
		return "", false
	}
	var words, title []string
	var inside string // the element that the text is in
	for tokens := html.NewTokenizer(bytes.NewReader(body)); ; {
		switch tokens.Next() {
		case html.ErrorToken: // the end
			if len(words) == 0 {
				words = title
			}
			return strings.Join(words, " "), true
		case html.StartTagToken:
			name, _ := tokens.TagName()
			inside = string(name)
		case html.EndTagToken:
			inside = ""
		case html.SelfClosingTagToken, html.CommentToken, html.DoctypeToken:
		case html.TextToken:
			text := strings.Fields(string(tokens.Text()))
			switch inside {
			case "script", "style":
			case "title":
				title = append(title, text...)
			default:
				words = append(words, text...)
			}
		}
	}
}
