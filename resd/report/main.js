for (const draw of [drawCurves, drawTrace, drawPlaybook, drawAttempts]) draw();
