package bundle

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"path"
)

// The bounds of a picture: it is decoded here and by core, in memory that grows with its pixels.
const (
	maxIcon     = 500e3 // bytes
	maxIconSide = 1024  // pixels
)

// format is a way to write pictures.
type format struct {
	name   string
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

func formatOf(file string) (format, bool) {
	switch path.Ext(file) {
	case ".png":
		return format{"PNG", png.DecodeConfig, png.Decode}, true
	case ".jpg", ".jpeg":
		return format{"JPEG", jpeg.DecodeConfig, jpeg.Decode}, true
	}
	return format{}, false
}

// icon is a picture that core can take for the bot's own.
func (t *table) icon(file func(string) ([]byte, bool)) string {
	v, ok := t.str("icon", `icon = "icon.png"`)
	if !ok {
		return ""
	}
	f, known := formatOf(v)
	data, there := file(v)
	switch {
	case !known:
		t.fault("icon", fmt.Sprintf("icon %q is not a .png or .jpg", printable(v)), `write icon = "icon.png"`)
	case !there:
		t.fault("icon", fmt.Sprintf("icon %q is not in the bundle", printable(v)), "add the file, or correct its path")
	case len(data) > maxIcon:
		t.fault("icon", fmt.Sprintf("icon %q is larger than %s", printable(v), FormatSize(maxIcon)), "make the picture smaller")
	default:
		if message, fix := f.fault(data); message != "" {
			t.fault("icon", fmt.Sprintf("icon %q %s", printable(v), message), fix)
		}
	}
	return v
}

// fault says what is wrong with a picture, and what to do, or "".
func (f format) fault(data []byte) (message, fix string) {
	config, err := f.config(bytes.NewReader(data))
	if err == nil && (config.Width > maxIconSide || config.Height > maxIconSide) {
		return fmt.Sprintf("has %d × %d pixels, more than %d × %d", config.Width, config.Height, maxIconSide, maxIconSide), "make the picture smaller"
	}
	if err == nil {
		_, err = f.decode(bytes.NewReader(data))
	}
	if err != nil {
		return fmt.Sprintf("cannot be read as %s: %.100s", f.name, printable(err.Error())), "save the picture anew as " + f.name
	}
	return "", ""
}
