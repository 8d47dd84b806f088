(function () {
  "use strict";
  var figures = JSON.parse(document.getElementById("figures").textContent);
  var plots = Array.prototype.slice.call(document.querySelectorAll("[data-figure]"));
  var pointer = window.matchMedia("(hover: hover)").matches;
  var config = {
    displayModeBar: pointer ? "hover" : false,
    displaylogo: false,
    // A button of the library's sends a figure's data to its maker; this page sends nothing.
    showSendToCloud: false,
    plotlyServerURL: "",
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]],
    responsive: true,
  };

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  }

  function faded(hex, alpha) {
    var n = parseInt(hex.slice(1), 16);
    return "rgba(" + (n >> 16) + "," + ((n >> 8) & 255) + "," + (n & 255) + "," + alpha + ")";
  }

  function painted(trace) {
    var own = colour(trace.meta.role);
    if (trace.line) trace.line.color = own;
    if (trace.marker) trace.marker.color = own;
    if (trace.fill) trace.fillcolor = faded(own, 0.13);
    return trace;
  }

  function framed(layout) {
    var soft = colour("soft"), grid = colour("grid");
    var several = !layout.hasOwnProperty("showlegend");
    Object.keys(layout).forEach(function (key) {
      if (!/^[xy]axis/.test(key)) return;
      var axis = layout[key];
      axis.gridcolor = grid;
      axis.zerolinecolor = grid;
      axis.linecolor = grid;
      axis.automargin = true;
      axis.title.font = { size: 12, color: soft };
      axis.title.standoff = 8;
      axis.tickfont = { size: 12, color: soft };
    });
    (layout.shapes || []).forEach(function (shape) {
      if (shape.name === "outside") {
        shape.fillcolor = faded(colour("shade"), 0.05);
        shape.line = { width: 0 };
        shape.layer = "below";
      } else if (shape.name === "held") {
        shape.fillcolor = faded(colour("error"), 0.14);
        shape.line = { width: 0 };
        shape.layer = "below";
      } else {
        shape.line = { width: 1, dash: "dot", color: soft };
      }
    });
    (layout.annotations || []).forEach(function (note) {
      note.font = { size: 11, color: soft };
    });
    layout.font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("ink") };
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.margin = { l: 56, r: 14, t: several ? 30 : 20, b: 44 };
    layout.legend = { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { size: 12, color: soft } };
    layout.hoverlabel = { bgcolor: colour("card"), bordercolor: colour("rule"), font: { size: 12, color: colour("ink") } };
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: colour("faint"), activecolor: colour("ink") };
    return layout;
  }

  function draw() {
    plots.forEach(function (place) {
      var figure = JSON.parse(JSON.stringify(figures[place.dataset.figure]));
      window.Plotly.react(place, figure.data.map(painted), framed(figure.layout), config);
    });
  }

  draw();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  window.matchMedia("print").addEventListener("change", draw);
})();
