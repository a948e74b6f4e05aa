package bundle

import (
	"bytes"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"strings"
	"testing"
)

func encodePNG(w io.Writer, m image.Image) error { return png.Encode(w, m) }

func encodeJPEG(w io.Writer, m image.Image) error { return jpeg.Encode(w, m, nil) }

func picture(width, height int, encode func(io.Writer, image.Image) error) []byte {
	var b bytes.Buffer
	if err := encode(&b, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func TestIcon(t *testing.T) {
	whole := picture(64, 64, encodePNG)
	for _, test := range []struct {
		name, file string
		data       []byte
		want       string // of the report; "": the icon is taken
	}{
		{"PNG", "icon.png", whole, ""},
		{"JPEG", "icon.jpg", picture(1024, 1024, encodeJPEG), ""},
		{"JPEG called PNG", "icon.png", picture(64, 64, encodeJPEG), `bot.toml:6:1: icon "icon.png" cannot be read as PNG: png: invalid format: not a PNG file: save the picture anew as PNG`},
		{"PNG called JPEG", "icon.jpeg", whole, `icon "icon.jpeg" cannot be read as JPEG`},
		{"cut", "icon.png", whole[:len(whole)-20], `icon "icon.png" cannot be read as PNG: png: invalid format: unexpected EOF`},
		{"empty", "icon.png", nil, `cannot be read as PNG`},
		{"too wide", "icon.png", picture(1025, 1, encodePNG), `has 1025 × 1 pixels, more than 1024 × 1024: make the picture smaller`},
		{"too large", "icon.png", make([]byte, maxIcon+1), `icon "icon.png" is larger than 500kB`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := FromFiles(with(minimal+"icon = \""+test.file+"\"\n", File{test.file, test.data}), DefaultCeilings())
			if test.want == "" && err != nil {
				t.Error(err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}
