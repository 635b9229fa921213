package awsauth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vramjet/vramjet/providers/awsauth"
)

// The credentials of AWS's published examples.
const (
	exampleID     = "AKIDEXAMPLE"
	exampleSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY" //nolint:gosec // AWS's example
)

func sha(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// signature computes Signature Version 4 by its documentation: path is escaped once
// more than it goes out, and headers are those that are signed, sorted.
func signature(r *http.Request, path string, body []byte, scope string, headers []string) string {
	var canonical strings.Builder
	canonical.WriteString(r.Method + "\n" + path + "\n" + strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20") + "\n")
	for _, h := range headers {
		value := r.Header.Get(h)
		if h == "host" {
			value = r.URL.Host
		}
		if h == "content-length" {
			value = strconv.Itoa(len(body))
		}
		canonical.WriteString(h + ":" + value + "\n")
	}
	canonical.WriteString("\n" + strings.Join(headers, ";") + "\n" + sha(body))
	text := "AWS4-HMAC-SHA256\n" + r.Header.Get("X-Amz-Date") + "\n" + scope + "\n" + sha([]byte(canonical.String()))
	key := []byte("AWS4" + exampleSecret)
	for part := range strings.SplitSeq(scope, "/") {
		key = mac(key, part)
	}
	return hex.EncodeToString(mac(key, text))
}

// The computation above is right: it is that of AWS's test suite, "get-vanilla".
func TestSignatureOfAWS(t *testing.T) {
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Host: "example.amazonaws.com", Path: "/"}, Header: http.Header{"X-Amz-Date": {"20150830T123600Z"}}}
	got := signature(r, "/", nil, "20150830/us-east-1/service/aws4_request", []string{"host", "x-amz-date"})
	if want := "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestSigner(t *testing.T) {
	body := []byte(`{"messages":[]}`)
	for _, c := range []struct {
		target, path, scope, token string
		body                       []byte
	}{
		{"https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.nova-lite-v1%3A0/converse-stream", "/model/amazon.nova-lite-v1%253A0/converse-stream", "us-east-1/bedrock", "", body},
		{"https://bedrock-runtime.us-gov-west-1.amazonaws.com/model/m/converse-stream", "/model/m/converse-stream", "us-gov-west-1/bedrock", "FwoGZXIvYXdzEXAMPLE", body},
		{"https://bedrock.cn-north-1.amazonaws.com.cn/inference-profiles?maxResults=1000&type=SYSTEM_DEFINED&nextToken=a%2Bb%3D", "/inference-profiles", "cn-north-1/bedrock", "", nil},
		{"https://vpce-0f-1.bedrock-runtime.ap-southeast-2.vpce.amazonaws.com/model/m/converse-stream", "/model/m/converse-stream", "ap-southeast-2/bedrock", "", body},
		{"https://bedrock-mantle.eu-west-1.api.aws/v1/models", "/v1/models", "eu-west-1/bedrock-mantle", "", nil},
	} {
		method := http.MethodGet
		if c.body != nil {
			method = http.MethodPost
		}
		r, err := http.NewRequestWithContext(t.Context(), method, c.target, strings.NewReader(string(c.body)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		sign := awsauth.Signer(func() awsauth.Credentials {
			return awsauth.Credentials{AccessKeyID: exampleID, SecretAccessKey: exampleSecret, SessionToken: c.token}
		})
		if err := sign(r, c.body); err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if err != nil || time.Since(at) > time.Minute {
			t.Errorf("signed at %s", r.Header.Get("X-Amz-Date"))
		}
		scope := at.Format("20060102") + "/" + c.scope + "/aws4_request"
		rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential="+exampleID+"/"+scope+", SignedHeaders=")
		signed, got, ok2 := strings.Cut(rest, ", Signature=")
		if !ok || !ok2 {
			t.Fatalf("%s: Authorization: %s", c.target, r.Header.Get("Authorization"))
		}
		headers := strings.Split(signed, ";")
		if !slices.IsSorted(headers) || !slices.Contains(headers, "host") || !slices.Contains(headers, "x-amz-date") || slices.Contains(headers, "x-amz-security-token") != (c.token != "") {
			t.Errorf("signed headers: %v", headers)
		}
		if want := signature(r, c.path, c.body, scope, headers); got != want {
			t.Errorf("%s: signature %s, want %s", c.target, got, want)
		}
	}
}

func TestNothingToSignWith(t *testing.T) {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://bedrock.us-east-1.amazonaws.com/foundation-models", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []awsauth.Credentials{{}, {AccessKeyID: exampleID}, {SecretAccessKey: exampleSecret}} {
		if err := awsauth.Signer(func() awsauth.Credentials { return c })(r, nil); err == nil || err.Error() != "no AWS credentials" {
			t.Errorf("%+v: %v", c, err)
		}
	}
	r.URL.Host = "bedrock.internal.example.com"
	if err := awsauth.Signer(func() awsauth.Credentials { return awsauth.Credentials{AccessKeyID: "a", SecretAccessKey: "b"} })(r, nil); err == nil || !strings.Contains(err.Error(), "region") {
		t.Errorf("without a region: %v", err)
	}
}
